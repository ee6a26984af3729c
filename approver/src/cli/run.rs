//! What each command does: open the store, ask the library, hand the outcome to `show`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::CommandFactory;
use semilla_approver::Phone;
use semilla_approver::clock::SystemClock;
use semilla_approver::entropy::SystemEntropy;
use semilla_approver::errors::{Error, Input, StoreFault};
use semilla_approver::invitation::Invitation;
use semilla_approver::phone::{CodeRequest, Inbox, ShownCode};
use semilla_approver::review::Request;
use semilla_approver::store::{FileStore, Stretch};
use semilla_core::language::{Label, Language};
use semilla_core::protocol::wire::OperationState;
use tokio::time::{Instant, sleep, timeout};

use super::arguments::{Arguments, CodeArguments, Command, Global, Invited, RotateReason};
use super::ask::Ask;
use super::card::{card, short};
use super::progress::during;
use super::report::{Report, error_text, print};
use super::show;

/// How long a code waits for the server, which it can do without.
const GLANCE: Duration = Duration::from_secs(3);

/// How long `watch` pauses where the server cannot be reached.
const RETRY: Duration = Duration::from_secs(5);

/// Runs one command.
pub(crate) async fn run(arguments: Arguments, language: Language) -> Result<Report, Error> {
    let Arguments { global, command } = arguments;
    let run = Run { ask: Ask::new(&global, language), global: &global, language };
    match command {
        Command::Bind(invited) => run.bind(&invited).await,
        Command::Enroll(invited) => run.enroll(&invited).await,
        Command::Code(wanted) => run.code(&wanted).await,
        Command::Inbox { wait } => run.inbox(Duration::from_secs(wait)).await,
        Command::Approve { id, number } => run.approve(id.as_deref(), number).await,
        Command::Deny { id, reason } => {
            let phone = run.phone()?;
            let request = run.request(&phone, id.as_deref()).await?;
            let answer = run.waiting(phone.deny_request(&request, reason.into())).await?;
            show::answered(&answer, OperationState::Denied, language)
        }
        Command::Watch { once, timeout } => run.watch(once, timeout).await,
        Command::Tokens { offline } => {
            let phone = run.phone()?;
            let tokens = if offline { phone.tokens()? } else { run.waiting(phone.sync()).await? };
            Ok(show::tokens(&tokens, language))
        }
        Command::Devices => {
            let phone = run.phone()?;
            let devices = run.waiting(phone.devices()).await?;
            Ok(show::devices(&devices, phone.account().ok().as_ref(), language))
        }
        Command::Accounts => {
            let phone = run.store(&run.folder()?)?;
            Ok(show::accounts(&phone.accounts()?, language))
        }
        Command::Rotate { serial, cause } => run.rotate(serial, cause).await,
        Command::Leave { yes } => run.leave(yes).await,
        Command::Pin { new_pin_file } => {
            let present = run.ask.pin()?;
            let store = FileStore::open(&run.folder()?, &present)?;
            let new = run.ask.changed_pin(new_pin_file.as_deref())?;
            store.change_pin(&present, &new)?;
            Ok(show::pin_changed(language))
        }
        // Written as they are: their readers are a shell and a manual.
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "approver",
                &mut std::io::stdout(),
            );
            Ok(Report::new(String::new(), serde_json::Value::Null))
        }
        Command::Man { folder } => {
            clap_mangen::generate_to(Arguments::command(), &folder)
                .map_err(|error| StoreFault::Io(error.to_string()))?;
            Ok(Report::new(String::new(), serde_json::Value::Null))
        }
    }
}

struct Run<'a> {
    ask: Ask<'a>,
    global: &'a Global,
    language: Language,
}

impl Run<'_> {
    /// The store's folder: as named, or in the place for a user's data (XDG Base Directory
    /// Specification).
    fn folder(&self) -> Result<PathBuf, Error> {
        if let Some(folder) = &self.global.store {
            return Ok(folder.clone());
        }
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let data = variable("XDG_DATA_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        let data = data.ok_or(StoreFault::Missing)?;
        Ok(data.join("semilla").join("approver"))
    }

    /// The phone of an existing store, whatever its bindings.
    fn store(&self, folder: &std::path::Path) -> Result<Phone, Error> {
        if !FileStore::exists(folder) && !folder.join("tries").exists() {
            return Err(StoreFault::Missing.into());
        }
        let store = FileStore::open(folder, &self.ask.pin()?)?;
        Ok(self.over(store))
    }

    fn over(&self, store: FileStore) -> Phone {
        Phone::new(Arc::new(store.into()), Arc::new(SystemClock), Arc::new(SystemEntropy))
    }

    /// The phone with the binding that is meant.
    fn phone(&self) -> Result<Phone, Error> {
        let phone = self.store(&self.folder()?)?;
        match (self.global.account, &self.global.server) {
            (Some(number), _) => Ok(phone.for_account(number)),
            // A server in the environment that is bound nowhere is there for codes to be typed.
            (None, Some(server)) => match phone.for_server(server) {
                Err(Error::NotBound) if phone.account().is_ok() => Ok(phone),
                chosen => chosen,
            },
            (None, None) => Ok(phone),
        }
    }

    async fn waiting<T>(&self, work: impl Future<Output = T>) -> T {
        let what = Label("Esperando al servidor…", "Waiting for the server…");
        during(what.text(self.language), work).await
    }

    async fn bind(&self, invited: &Invited) -> Result<Report, Error> {
        let (_, binding) = self.bound_by(invited).await?;
        Ok(show::bound(&binding, self.language))
    }

    /// Binds with what was brought; makes the store where there is none.
    async fn bound_by(
        &self,
        invited: &Invited,
    ) -> Result<(Phone, semilla_approver::phone::Binding), Error> {
        let folder = self.folder()?;
        // On standard input the PIN comes first.
        let phone = if FileStore::exists(&folder) {
            self.store(&folder)?
        } else {
            self.over(FileStore::create(&folder, &self.ask.new_pin()?, Stretch::STANDARD)?)
        };
        let phone = match &invited.name {
            Some(name) => phone.named(name)?,
            None => phone,
        };
        let phone = match &invited.ca {
            Some(file) => {
                phone.trusting(&std::fs::read_to_string(file).map_err(|_| Input::File)?)?
            }
            None => phone,
        };
        let text = self.ask.invitation(invited)?;
        let invitation = Invitation::read(&text, self.global.server.as_deref())?;
        let binding = self.waiting(phone.bind_with(&invitation, invited.another)).await?;
        Ok((phone, binding))
    }

    async fn enroll(&self, invited: &Invited) -> Result<Report, Error> {
        let has_code = invited.qr.is_some() || invited.code_file.is_some() || invited.another;
        let folder = self.folder()?;
        if !has_code && FileStore::exists(&folder) {
            let phone = self.phone()?;
            if phone.account().is_ok() {
                let enrolled = self.waiting(phone.enroll_next()).await?;
                return Ok(show::enrolled(&enrolled, self.language));
            }
        }
        let (phone, binding) = self.bound_by(invited).await?;
        if binding.match_number.is_some() {
            // The other phone has to agree first; then `enroll` goes on.
            return Ok(show::bound(&binding, self.language));
        }
        let enrolled = self.waiting(phone.enroll_next()).await?;
        Ok(show::enrolled(&enrolled, self.language))
    }

    async fn code(&self, wanted: &CodeArguments) -> Result<Report, Error> {
        let phone = self.phone()?;
        if !wanted.offline {
            match timeout(GLANCE, phone.sync()).await {
                // Codes work without a network.
                Err(_) | Ok(Ok(_) | Err(Error::Unreachable(..))) => {}
                Ok(Err(error)) if error.exit_code() == 69 => {}
                Ok(Err(error)) => return Err(error),
            }
        }
        let request = CodeRequest {
            serial: wanted.serial.clone(),
            next: wanted.next,
            unused: wanted.unused,
            min_ttl: Duration::from_secs(wanted.min_ttl),
            offline: wanted.offline,
        };
        let until = Instant::now() + Duration::from_secs(wanted.timeout);
        let what = Label("Esperando un código…", "Waiting for a code…").text(self.language);
        let shown = during(what, code_until(&phone, &request, until)).await?;
        Ok(show::code(&shown, self.language))
    }

    async fn inbox(&self, wait: Duration) -> Result<Report, Error> {
        let phone = self.phone()?;
        let until = Instant::now() + wait;
        let mut inbox = self.waiting(phone.inbox()).await?;
        while is_empty(&inbox) && Instant::now() < until {
            let left = until - Instant::now();
            inbox = self.waiting(phone.wait_for_requests(left)).await?;
            inbox.enrollments = phone.enrollments().await?;
        }
        if is_empty(&inbox) && !wait.is_zero() {
            return Err(Error::TimedOut);
        }
        Ok(show::inbox(&inbox, phone.server_time()?, self.language))
    }

    async fn approve(&self, id: Option<&str>, number: Option<String>) -> Result<Report, Error> {
        let phone = self.phone()?;
        let request = self.request(&phone, id).await?;
        // What is approved is shown also to a script, beside its output.
        let shown = card(&request, phone.server_time()?, self.language);
        let _ = write!(anstream::stderr(), "{shown}");
        let number = match number {
            Some(number) => number.into(),
            None if !request.wants_number() => String::new().into(),
            None => self.ask.number()?,
        };
        let answer = self.waiting(phone.approve_request(&request, number.trim())).await?;
        show::answered(&answer, OperationState::Executed, self.language)
    }

    /// The request whose id ends so, or the only one.
    async fn request(&self, phone: &Phone, id: Option<&str>) -> Result<Arc<Request>, Error> {
        let Inbox { requests, refused, .. } =
            self.waiting(phone.wait_for_requests(Duration::ZERO)).await?;
        let ending = id.unwrap_or_default();
        let is_meant = |id: &str| id.ends_with(ending) && (ending.is_empty() || ending.len() >= 4);
        if let Some(refused) = refused.iter().find(|refused| is_meant(&refused.id.to_string())) {
            return Err(refused.refusal.into());
        }
        let mut meant = requests.iter().filter(|request| is_meant(&request.id().to_string()));
        match (meant.next(), meant.next()) {
            (Some(request), None) => Ok(Arc::clone(request)),
            (None, _) => Err(Error::NoRequest),
            (Some(_), Some(_)) => Err(Error::WhichRequest(
                requests.iter().map(|request| short(request.id())).collect(),
            )),
        }
    }

    async fn watch(&self, once: bool, seconds: Option<u64>) -> Result<Report, Error> {
        let phone = self.phone()?;
        let watching = self.watch_on(&phone, once);
        let Some(seconds) = seconds else { return watching.await };
        timeout(Duration::from_secs(seconds), watching).await.unwrap_or(Err(Error::TimedOut))
    }

    async fn watch_on(&self, phone: &Phone, once: bool) -> Result<Report, Error> {
        let mut watch = phone.watch();
        loop {
            match watch.next().await {
                Ok(news) => {
                    let report = show::news(&news, phone.server_time()?, self.language);
                    if once {
                        return Ok(report);
                    }
                    // Whoever read it is gone, and so is the reason to go on.
                    print(Some(&report), self.global.json).map_err(StoreFault::from)?;
                }
                Err(error) if error.exit_code() == 69 => {
                    let _ = write!(anstream::stderr(), "{}", error_text(&error, self.language));
                    sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn rotate(&self, serial: Option<String>, cause: RotateReason) -> Result<Report, Error> {
        let phone = self.phone()?;
        let serial = match serial {
            Some(serial) => serial,
            None => only(self.waiting(phone.sync()).await?.into_iter().map(|token| token.serial))?,
        };
        if cause == RotateReason::NewPhone {
            let rotating = self.waiting(phone.rotate(&serial, cause.into())).await?;
            return Ok(show::rotating(&rotating, self.language));
        }
        let enrolled = self.waiting(phone.renew(&serial, cause.into())).await?;
        Ok(show::enrolled(&enrolled, self.language))
    }

    async fn leave(&self, yes: bool) -> Result<Report, Error> {
        let phone = self.phone()?;
        let account = phone.account()?;
        let question = Label(
            "Se borrarán las semillas de este teléfono. Escriba «sí»: ",
            "The seeds of this phone will be erased. Type \"yes\": ",
        );
        if !yes && !self.ask.yes(question)? {
            return Err(Input::NotConfirmed.into());
        }
        self.waiting(phone.leave()).await?;
        Ok(show::left(&account, self.language))
    }
}

/// A code as it is wanted, waiting for one until then.
async fn code_until(
    phone: &Phone,
    request: &CodeRequest,
    until: Instant,
) -> Result<ShownCode, Error> {
    loop {
        match phone.make_code(request) {
            Err(Error::NoUnusedCode(at)) => {
                let pause = at.since(phone.now()) + Duration::from_millis(50);
                if Instant::now() + pause > until {
                    return Err(Error::NoUnusedCode(at));
                }
                sleep(pause).await;
            }
            shown => return shown,
        }
    }
}

fn is_empty(inbox: &Inbox) -> bool {
    inbox.requests.is_empty() && inbox.refused.is_empty() && inbox.enrollments.is_empty()
}

fn only(serials: impl Iterator<Item = String>) -> Result<String, Error> {
    let serials: Vec<String> = serials.collect();
    match serials.as_slice() {
        [] => Err(Error::NoToken),
        [serial] => Ok(serial.clone()),
        _ => Err(Error::WhichToken(serials)),
    }
}
