//! A world for a story: the real server at port 0 with a clock that the story moves, a bank with
//! an operator, a company with an administrator and a secondary user, tokens in its pool, and real
//! phones. Everything is brought about over HTTP, as anybody outside would.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use semilla_approver::Phone;
use semilla_approver::entropy::SystemEntropy as PhoneEntropy;
use semilla_core::person::Login;
use semilla_core::seal::{Keyring, MasterKey};
use semilla_core::text::Name;
use semilla_core::time::Timestamp;
use semilla_server::app::{ProgramLimits, SystemEntropy};
use semilla_server::clock::{Clock, ManualClock};
use semilla_server::serve::{Running, Start, start};
use semilla_server::workflow::people::NewUser;
use semilla_server::workflow::retention::Retention;
use semilla_server::workflow::{act, bootstrap};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::http::{Expect, Http, Program};

/// When every story begins: 2026-01-15T15:00:00Z, the first second of a step.
pub const BEGINNING: i64 = 1_768_489_200;

/// A company with its people, its program and its phones.
pub struct Company {
    /// Its id.
    pub id: String,
    /// Its program, with every scope a company's program may have, acting for the administrator.
    pub program: Program,
    /// Andrés Gómez, the administrator.
    pub administrator: String,
    /// Laura Valencia, a secondary user.
    pub laura: String,
}

/// What the server of a world is set to, where it matters.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much programs may ask: without limit.
    pub program_limits: ProgramLimits,
    /// How many failed codes within a minute raise the alarm: 500.
    pub alarm_failures_per_minute: u32,
    /// Somebody says that the clock is right: nobody does.
    pub clock_confirmed: bool,
    /// For how long things are kept: for good, and answers for a day.
    pub retention: Retention,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            program_limits: ProgramLimits { requests_per_second: 0, failed_codes_per_minute: 0 },
            alarm_failures_per_minute: 500,
            clock_confirmed: false,
            retention: Retention::default(),
        }
    }
}

/// A world.
pub struct World {
    /// The server; none while it is stopped.
    server: Option<Running>,
    /// The clock of server and phones.
    pub clock: Arc<ManualClock>,
    /// The operator's program.
    pub operator: Program,
    /// The company the story is about.
    pub company: Company,
    folder: tempfile::TempDir,
    master: Zeroizing<String>,
    /// What its server is set to, from its next start on.
    pub settings: Settings,
    next_serial: std::sync::atomic::AtomicU32,
}

/// Every scope that a company's program may have.
pub const COMPANY_SCOPES: [&str; 10] = [
    "tokens:read",
    "tokens:assign",
    "tokens:block",
    "tokens:release",
    "otp:verify",
    "enrollments:deliver",
    "users:manage",
    "policies:manage",
    "audit:read",
    "webhooks:manage",
];

impl World {
    /// A world at its beginning: Laura holds nothing yet, and nobody has a phone.
    pub async fn begin() -> Self {
        Self::set_to(Settings::default()).await
    }

    /// As [`World::begin`], with a server set to `settings`.
    pub async fn set_to(settings: Settings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(BEGINNING)));
        let master = MasterKey::generate(&SystemEntropy::default()).to_line();
        let server = launch(folder.path().join("data"), &master, &clock, None, settings).await;
        let operator = NewUser {
            login: Login::parse("operador").expect("a login"),
            name: Name::parse("Olga Ruiz").expect("a name"),
            role: semilla_core::person::Role::Operator,
        };
        let bank = Name::parse("Banco de Prueba").expect("a name");
        let created = act(&server.app, None, move |app| {
            let (bank, operator) = (bank.clone(), operator.clone());
            async move { bootstrap::bank(&app, &bank, &operator).await }
        })
        .await
        .expect("a bank")
        .into_answer();
        let http = Http::new(server.issuer());
        let created: Value = serde_json::from_str(&created.body).expect("JSON");
        let operator = Program::of(http.clone(), &created);
        let company = company(&operator, "Comercial Andina S.A.S.").await;
        let next_serial = std::sync::atomic::AtomicU32::new(4_900_032);
        Self {
            server: Some(server),
            clock,
            operator,
            company,
            folder,
            master,
            settings,
            next_serial,
        }
    }

    /// The server.
    pub fn server(&self) -> &Running {
        self.server.as_ref().expect("the server runs")
    }

    /// A plain client of the server.
    pub fn http(&self) -> Http {
        self.operator.http().clone()
    }

    /// The folder of the database.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The file of the checkpoints, outside of that folder.
    pub fn checkpoints(&self) -> PathBuf {
        self.folder.path().join("checkpoints.txt")
    }

    /// The line of the master key: what must never leave the server.
    pub fn master_key(&self) -> &str {
        &self.master
    }

    /// Stops the server, for good or until [`World::restart`].
    pub async fn stop(&mut self) -> usize {
        self.server.take().expect("the server runs").stop().await
    }

    /// Starts the server again on the same folder and the same port.
    pub async fn restart(&mut self) {
        let address = match self.server.take() {
            Some(running) => {
                let address = running.address;
                running.stop().await;
                address
            }
            None => self.http().base().trim_start_matches("http://").parse().expect("an address"),
        };
        self.server = Some(
            launch(self.data(), &self.master, &self.clock, Some(address), self.settings).await,
        );
    }

    /// Now, for server and phones.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Moves the clock of server and phones, and has the chores done that this brings.
    pub async fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
        semilla_server::workflow::chores::run(&self.server().app).await.expect("chores");
    }

    /// Another company with its people.
    pub async fn another_company(&self, name: &str) -> Company {
        company(&self.operator, name).await
    }

    /// A token in the pool of `company`: issued and allotted. Returns its id and serial number.
    pub async fn token_in_pool(&self, company: &Company) -> (String, String) {
        let number = self.next_serial.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let serial = format!("FEF{number:07}");
        let issued = self
            .operator
            .post("/api/v1/stock/issue", json!({"first": serial, "count": 1}))
            .await
            .expect(200);
        let allot = json!({"first": serial, "count": 1, "company": company.id});
        self.operator.post("/api/v1/stock/allot", allot).await.expect(200);
        (issued["tokens"][0]["id"].as_str().expect("an id").to_owned(), serial)
    }

    /// A phone out of the box, with the clock of this world.
    pub fn phone(&self) -> Phone {
        let clock = Arc::clone(&self.clock);
        Phone::in_memory(Arc::new(move || clock.now()), Arc::new(PhoneEntropy))
    }

    /// A phone bound to a person of `company` by an activation code of its own.
    pub async fn bound_phone(&self, company: &Company, user: &str) -> Phone {
        let phone = self.phone();
        let path = format!("/api/v1/users/{user}/activation");
        let activation = company.program.post(&path, json!({})).await.expect(201);
        phone.bind(activation["uri"].as_str().expect("a uri")).await.expect("bound");
        phone
    }

    /// Assigns a token of the pool to a person. Returns its id, its serial number and the
    /// enrollment.
    pub async fn assigned(&self, company: &Company, user: &str) -> (String, String, String) {
        let (token, serial) = self.token_in_pool(company).await;
        let path = format!("/api/v1/tokens/{token}/assign");
        let opened = company.program.post(&path, json!({"user": user})).await.expect(201);
        (token, serial, opened["enrollment"]["id"].as_str().expect("an id").to_owned())
    }

    /// Delivers the activation of an enrollment to a new phone, which binds and enrolls.
    pub async fn enrolled_phone(&self, company: &Company, enrollment: &str) -> Phone {
        let path = format!("/api/v1/enrollments/{enrollment}/activation");
        let activation = company.program.post(&path, json!({})).await.expect(201);
        let phone = self.phone();
        phone.bind(activation["uri"].as_str().expect("a uri")).await.expect("bound");
        phone.enroll_next().await.expect("enrolled");
        phone
    }

    /// Laura with an active token on her phone, and the administrator with a phone: where most
    /// stories begin.
    pub async fn with_active_token() -> (Self, Active) {
        let world = Self::begin().await;
        let active = world.active_token(&world.company).await;
        (world, active)
    }

    /// The same in any company of this world.
    pub async fn active_token(&self, company: &Company) -> Active {
        let administrator = self.bound_phone(company, &company.administrator).await;
        let (token, serial, enrollment) = self.assigned(company, &company.laura).await;
        let phone = self.enrolled_phone(company, &enrollment).await;
        // The code that proved the seed is used: the next step has a fresh one.
        self.clock.advance(Duration::from_secs(30));
        Active { token, serial, phone, administrator }
    }

    /// Everything in the audit trail of `company`, oldest first.
    pub async fn trail(&self, company: &Company) -> Vec<Value> {
        let mut records = Vec::new();
        loop {
            let path = format!("/api/v1/audit?limit=100&after={}", records.len());
            let page = company.program.get(&path).await.expect(200);
            let items = page["items"].as_array().expect("items").clone();
            if items.is_empty() {
                return records;
            }
            records.extend(items);
        }
    }

    /// How many records of each kind the trail of `company` has from `from` on.
    pub async fn kinds_since(&self, company: &Company, from: usize) -> Vec<String> {
        let trail = self.trail(company).await;
        trail[from..]
            .iter()
            .map(|item| item["record"]["kind"].as_str().expect("a kind").to_owned())
            .collect()
    }
}

/// An active token and its phones.
pub struct Active {
    /// The token's id.
    pub token: String,
    /// Its serial number.
    pub serial: String,
    /// Laura's phone.
    pub phone: Phone,
    /// The administrator's phone.
    pub administrator: Phone,
}

impl Active {
    /// The code Laura's phone shows now.
    pub fn code(&self) -> String {
        self.phone.code(&self.serial).expect("a code").code.expose().to_owned()
    }
}

async fn launch(
    data: PathBuf,
    master: &str,
    clock: &Arc<ManualClock>,
    listen: Option<std::net::SocketAddr>,
    settings: Settings,
) -> Running {
    let keyring = Keyring::new(MasterKey::parse(master).expect("a key"), []);
    let checkpoints = data.with_file_name("checkpoints.txt");
    let mut options = Start::on_loopback(Some(data), keyring);
    options.clock_confirmed = settings.clock_confirmed;
    options.program_limits = settings.program_limits;
    options.alarm_failures_per_minute = settings.alarm_failures_per_minute;
    options.retention = settings.retention;
    options.checkpoint_file = Some(checkpoints);
    options.clock = Arc::clone(clock) as Arc<dyn Clock>;
    if let Some(listen) = listen {
        options.listen = listen;
    }
    start(options).await.expect("the server starts")
}

async fn company(operator: &Program, name: &str) -> Company {
    let body =
        json!({"name": name, "administrator": {"login": "andres.gomez", "name": "Andrés Gómez"}});
    let created = operator.post("/api/v1/companies", body).await.expect(201);
    let id = created["company"]["id"].as_str().expect("an id").to_owned();
    let administrator = created["administrator"]["id"].as_str().expect("an id").to_owned();
    let client = json!({"name": "Tesorería", "scopes": COMPANY_SCOPES, "askers": [administrator]});
    let client =
        operator.post(&format!("/api/v1/companies/{id}/clients"), client).await.expect(201);
    let program = Program::of(operator.http().clone(), &client);
    let laura = json!({"login": "laura.valencia", "name": "Laura Valencia"});
    let laura = program.post("/api/v1/users", laura).await.expect(201)["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    Company { id, program, administrator, laura }
}
