//! Companies, their people, their programs and their policy.

use schemars::JsonSchema;
use semilla_core::audit::{Actor, Subject};
use semilla_core::base64url;
use semilla_core::device::Device;
use semilla_core::entropy;
use semilla_core::id::{ClientId, CompanyId, UserId};
use semilla_core::operations::{BlockCause, State};
use semilla_core::person::{Binding, Company, Login, Role, User};
use semilla_core::policy::{Authorizer, Policy};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::assertion::ClientJwks;
use semilla_core::text::{Name, fold};
use serde::Deserialize;

use super::caller::{Caller, sha256};
use super::effects::{self, cancel_operation, reserve};
use super::tokens::{page, page_limit, problem_of, read_cursor, require_version, write_cursor};
use super::unit::Unit;
use super::views::{
    ClientCreated, ClientView, CompanyCreated, CompanyView, Nothing, Page, PolicyView, UserCreated,
    UserView,
};
use super::{Failure, Plan};
use crate::app::App;
use crate::records::{ApiScope, ApprovalSettings, Client, StoredToken};
use crate::store::{Query, Record, Records, Scope, Versioned};

/// A person to be made.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Unique within the company, for good.
    pub login: Login,
    /// As lists show it.
    pub name: Name,
    /// What they may do; `secondary` if not said.
    #[serde(default = "secondary")]
    pub role: Role,
}

fn secondary() -> Role {
    Role::Secondary
}

/// Makes a person of the caller's company. Administrators are made by operators alone.
pub async fn create_user(
    app: &App,
    caller: &Caller,
    new: &NewUser,
) -> Result<Plan<UserCreated>, Failure> {
    let allowed = match new.role {
        Role::Secondary | Role::Auditor => caller.company.id != CompanyId::BANK,
        Role::Operator => caller.company.id == CompanyId::BANK,
        Role::Administrator => false,
    };
    if !allowed {
        return Err(Problem::field("#/role", "not a role that this caller may give").into());
    }
    let mut unit = Unit::new(app);
    let user = new_user(&mut unit, caller.company.id, new, caller.actor()).await?;
    Ok(unit.plan(UserCreated(UserView::of(&user, 1))))
}

/// An operator makes an administrator of a company.
pub async fn create_administrator(
    app: &App,
    caller: &Caller,
    company: CompanyId,
    new: &NewUser,
) -> Result<Plan<UserCreated>, Failure> {
    let mut unit = Unit::new(app);
    company_of(&mut unit, company).await?;
    let new = NewUser { role: Role::Administrator, ..new.clone() };
    let user = new_user(&mut unit, company, &new, caller.actor()).await?;
    Ok(unit.plan(UserCreated(UserView::of(&user, 1))))
}

/// A person, in this unit.
pub async fn new_user(
    unit: &mut Unit<'_>,
    company: CompanyId,
    new: &NewUser,
    actor: Actor,
) -> Result<User, Failure> {
    let name = format!("{company}/{}", new.login);
    if unit.app.store.lookup(Scope::Login, &name).await?.is_some() {
        return Err(Problem::field("#/login", "is taken").into());
    }
    let user = User {
        id: UserId::new(unit.now, unit.app.entropy.as_ref()),
        company,
        login: new.login.clone(),
        name: new.name.clone(),
        role: new.role,
        active: true,
        binding: Binding::First,
        pending: None,
        created: unit.now,
    };
    reserve(unit, Scope::Login, name, company, user.id.to_string());
    unit.save(&user);
    let subject = Subject { user: Some(user.id), ..Subject::default() };
    let draft = unit.draft(company, "user.created", actor).about(subject);
    unit.record(draft.with("login", &user.login).with("role", user.role.name()));
    Ok(user)
}

/// What of a person may be changed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "name": "Laura Valencia" }]))]
pub struct UserChange {
    /// As lists show it.
    pub name: Option<Name>,
    /// Whether they take part.
    pub active: Option<bool>,
}

/// Changes a person. Who is deactivated takes operations and codes along at once.
pub async fn change_user(
    app: &App,
    caller: &Caller,
    id: UserId,
    change: &UserChange,
    if_match: Option<i64>,
) -> Result<Plan<UserView>, Failure> {
    let mut unit = Unit::new(app);
    let company = caller.company.id;
    let read = unit.get::<User>(company, &id.to_string()).await?.ok_or_else(Problem::not_found)?;
    require_version(&read, if_match)?;
    let mut user = read.record.clone();
    if let Some(name) = &change.name {
        user.name = name.clone();
    }
    if let Some(active) = change.active {
        if user.active && !active {
            require_another_administrator(&mut unit, &user).await?;
        }
        user.active = active;
    }
    let deactivated = read.record.active && !user.active;
    unit.save(&user);
    if let Some(name) = change.name.as_ref().filter(|name| **name != read.record.name) {
        rename_holder(&mut unit, company, id, name).await?;
    }
    let kind = match (read.record.active, user.active) {
        (true, false) => "user.deactivated",
        (false, true) => "user.activated",
        _ => "user.changed",
    };
    let subject = Subject { user: Some(id), ..Subject::default() };
    unit.record(unit.draft(company, kind, caller.actor()).about(subject));
    if deactivated {
        stop_user(&mut unit, &user, caller.actor()).await?;
    }
    let user = unit.must::<User>(company, &id.to_string()).await?.record;
    let view = UserView::of(&user, unit.version_after(&user));
    Ok(unit.plan(view))
}

/// The last active administrator of a company cannot be deactivated (security 75).
async fn require_another_administrator(unit: &mut Unit<'_>, user: &User) -> Result<(), Failure> {
    if user.role != Role::Administrator && user.role != Role::Operator {
        return Ok(());
    }
    let peers = Query::of(User::TABLE, user.company, 2)
        .equals("role", user.role.name())
        .equals("state", "active");
    // Read through the unit: two who deactivate each other at once meet here.
    if unit.find::<User>(&peers).await?.len() < 2 {
        let mut problem = Problem::new(
            ProblemType::StateConflict,
            "This is the last active administrator. Ask the bank's operator to add another first.",
        );
        problem.who_can_act = Some("operator".to_owned());
        return Err(problem.into());
    }
    Ok(())
}

/// Ends what a person had begun, and refuses their codes.
async fn stop_user(unit: &mut Unit<'_>, user: &User, actor: Actor) -> Result<(), Failure> {
    let company = user.company;
    super::enrollments::kill_codes(unit, company, Some(user.id)).await?;
    let asked = Query::of(semilla_core::approval::Operation::TABLE, company, 100)
        .equals("asker", user.id.to_string())
        .equals("state", "pending");
    for operation in unit.find::<semilla_core::approval::Operation>(&asked).await? {
        cancel_operation(unit, company, operation.record.id).await?;
    }
    // What was asked about them, and what others asked of their phones.
    if let Some(pending) = user.pending {
        cancel_operation(unit, company, pending).await?;
    }
    for device in effects::devices_of(unit, company, user.id).await? {
        effects::cancel_what_waits_on(unit, company, device.record.id).await?;
    }
    let held = Query::of(StoredToken::TABLE, company, 10).equals("holder", user.id.to_string());
    for stored in unit.find::<StoredToken>(&held).await? {
        if !matches!(stored.record.token.state(), State::Active | State::Assigned) {
            continue;
        }
        let token = stored.record.token.clone();
        let changed = token
            .block(BlockCause::UserInactive, unit.now)
            .map_err(|refused| problem_of(refused, Some(&stored.record)))?;
        effects::apply(unit, &stored, changed, actor.clone(), None).await?;
    }
    effects::wake_phones(unit, company, user.id).await
}

async fn rename_holder(
    unit: &mut Unit<'_>,
    company: CompanyId,
    id: UserId,
    name: &Name,
) -> Result<(), Failure> {
    let held = Query::of(StoredToken::TABLE, company, 10).equals("holder", id.to_string());
    for stored in unit.find::<StoredToken>(&held).await? {
        // The version of a token that waits for a phone stays what the phone was shown.
        if stored.record.token.pending.is_none() {
            unit.save(&StoredToken { holder_name: Some(name.clone()), ..stored.record });
        }
    }
    Ok(())
}

/// Shows a person.
pub async fn show_user(app: &App, caller: &Caller, id: UserId) -> Result<UserView, Failure> {
    let user = app.store.get::<User>(caller.company.id, &id.to_string()).await?;
    let user = user.ok_or_else(Problem::not_found)?;
    Ok(UserView::of(&user.record, user.version))
}

impl From<&Versioned<User>> for UserView {
    fn from(user: &Versioned<User>) -> Self {
        Self::of(&user.record, user.version)
    }
}

/// How a list of people or companies is asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// Only with this text in the name.
    pub q: Option<String>,
    /// Behind this page.
    pub cursor: Option<String>,
    /// At most this many: 1 to 100, 20 if not said.
    #[schemars(range(min = 1, max = 100))]
    pub limit: Option<u32>,
}

/// A page of the company's people.
pub async fn list_users(
    app: &App,
    caller: &Caller,
    listing: &Listing,
) -> Result<Page<UserView>, Failure> {
    let limit = page_limit(listing.limit)?;
    let mut query = Query::of(User::TABLE, caller.company.id, limit + 1);
    query.search = listing
        .q
        .as_deref()
        .filter(|q| !q.is_empty())
        .map(|q| (&["login", "name_folded"][..], fold(q)));
    query.after = listing.cursor.as_deref().map(|cursor| read_cursor(cursor, "id")).transpose()?;
    let total = app.store.count(&query).await?;
    let found = app.store.find::<User>(&query).await?;
    Ok(page(found, limit, total, |last| {
        write_cursor("id", &crate::store::Value::Null, &last.record.id())
    }))
}

/// A company to be made, with its first administrator.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCompany {
    /// Its name.
    pub name: Name,
    /// Its first administrator; the role is what that says.
    pub administrator: NewAdministrator,
}

/// A first administrator.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAdministrator {
    /// Unique within the company, for good.
    pub login: Login,
    /// As lists show it.
    pub name: Name,
}

/// Makes a company and its first administrator.
pub async fn create_company(
    app: &App,
    caller: &Caller,
    new: &NewCompany,
) -> Result<Plan<CompanyCreated>, Failure> {
    let mut unit = Unit::new(app);
    let company = Company {
        id: CompanyId::new(unit.now, app.entropy.as_ref()),
        name: new.name.clone(),
        active: true,
        policy: Policy::DEFAULT,
        created: unit.now,
    };
    let folded = company.name.folded();
    if app.store.lookup(Scope::CompanyName, &folded).await?.is_some() {
        return Err(Problem::field("#/name", "is taken").into());
    }
    reserve(&mut unit, Scope::CompanyName, folded, CompanyId::BANK, company.id.to_string());
    unit.save(&company);
    for chain in [CompanyId::BANK, company.id] {
        let actor = if chain == CompanyId::BANK { caller.actor() } else { Actor::System };
        unit.record(
            unit.draft(chain, "company.created", actor)
                .with("name", &company.name)
                .with("company", company.id),
        );
    }
    let administrator = NewUser {
        login: new.administrator.login.clone(),
        name: new.administrator.name.clone(),
        role: Role::Administrator,
    };
    let administrator = new_user(&mut unit, company.id, &administrator, Actor::System).await?;
    let view = CompanyCreated {
        company: CompanyView::of(&company, 1),
        administrator: UserView::of(&administrator, 1),
    };
    Ok(unit.plan(view))
}

async fn company_of(unit: &mut Unit<'_>, id: CompanyId) -> Result<Versioned<Company>, Failure> {
    let company = unit.get::<Company>(CompanyId::BANK, &id.to_string()).await?;
    company.ok_or_else(|| Problem::not_found().into())
}

/// Shows a company to an operator.
pub async fn show_company(app: &App, id: CompanyId) -> Result<CompanyView, Failure> {
    let company = app.store.get::<Company>(CompanyId::BANK, &id.to_string()).await?;
    let company = company.ok_or_else(Problem::not_found)?;
    Ok(CompanyView::from(&company))
}

impl From<&Versioned<Company>> for CompanyView {
    fn from(company: &Versioned<Company>) -> Self {
        Self::of(&company.record, company.version)
    }
}

/// A page of the companies.
pub async fn list_companies(app: &App, listing: &Listing) -> Result<Page<CompanyView>, Failure> {
    let limit = page_limit(listing.limit)?;
    let mut query = Query::of(Company::TABLE, CompanyId::BANK, limit + 1);
    query.search = listing.q.as_deref().filter(|q| !q.is_empty()).map(|q| (&["name"][..], fold(q)));
    query.after = listing.cursor.as_deref().map(|cursor| read_cursor(cursor, "id")).transpose()?;
    let total = app.store.count(&query).await?;
    let found = app.store.find::<Company>(&query).await?;
    Ok(page(found, limit, total, |last| {
        write_cursor("id", &crate::store::Value::Null, &last.record.id())
    }))
}

/// What of a company an operator may change.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompanyChange {
    /// Whether it takes part.
    pub active: bool,
}

/// Activates or deactivates a company. A deactivated one takes sessions, operations and codes
/// along at once.
pub async fn change_company(
    app: &App,
    caller: &Caller,
    id: CompanyId,
    change: &CompanyChange,
    if_match: Option<i64>,
) -> Result<Plan<CompanyView>, Failure> {
    if id == CompanyId::BANK {
        return Err(Problem::new(
            ProblemType::StateConflict,
            "The bank itself cannot be deactivated.",
        )
        .into());
    }
    let mut unit = Unit::new(app);
    let read = company_of(&mut unit, id).await?;
    require_version(&read, if_match)?;
    let company = Company { active: change.active, ..read.record };
    unit.save(&company);
    let kind = if company.active { "company.activated" } else { "company.deactivated" };
    for (chain, actor) in [(CompanyId::BANK, caller.actor()), (id, Actor::System)] {
        unit.record(unit.draft(chain, kind, actor).with("company", id));
    }
    if !company.active {
        super::enrollments::kill_codes(&mut unit, id, None).await?;
        let pending = Query::of(semilla_core::approval::Operation::TABLE, id, 1000)
            .equals("state", "pending");
        for operation in unit.find::<semilla_core::approval::Operation>(&pending).await? {
            cancel_operation(&mut unit, id, operation.record.id).await?;
        }
    }
    let view = CompanyView::of(&company, unit.version_after(&company));
    Ok(unit.plan(view))
}

/// A company's policy.
pub async fn show_policy(app: &App, caller: &Caller) -> Result<PolicyView, Failure> {
    let company = app.store.get::<Company>(CompanyId::BANK, &caller.company.id.to_string()).await?;
    let company = company.ok_or_else(Problem::not_found)?;
    Ok(PolicyView { policy: company.record.policy, version: company.version })
}

/// Sets a company's policy, if the bank allows it and somebody can satisfy it.
pub async fn set_policy(
    app: &App,
    caller: &Caller,
    policy: &Policy,
    if_match: Option<i64>,
) -> Result<Plan<PolicyView>, Failure> {
    let mut unit = Unit::new(app);
    let read = company_of(&mut unit, caller.company.id).await?;
    require_version(&read, if_match)?;
    let ready = if policy.authorizer == Authorizer::AnotherAdministrator {
        administrators_with_phone(&mut unit, caller.company.id).await?
    } else {
        0
    };
    let errors = policy.violations(ready);
    if let Some(first) = errors.first() {
        let mut problem = Problem::field(first.pointer.clone(), first.detail.clone());
        problem.errors = errors;
        return Err(problem.into());
    }
    let company = Company { policy: *policy, ..read.record };
    unit.save(&company);
    let draft = unit.draft(company.id, "policy.changed", caller.actor());
    unit.record(draft.with("policy", serde_json::to_string(policy).unwrap_or_default()));
    let version = unit.version_after(&company);
    Ok(unit.plan(PolicyView { policy: *policy, version }))
}

async fn administrators_with_phone(
    unit: &mut Unit<'_>,
    company: CompanyId,
) -> Result<usize, Failure> {
    let administrators = Query::of(User::TABLE, company, 100)
        .equals("role", Role::Administrator.name())
        .equals("state", "active");
    let mut ready = 0;
    for administrator in unit.find::<User>(&administrators).await? {
        let phones: Vec<Device> =
            super::approvals::trusted_phones(unit, company, administrator.record.id).await?;
        ready += usize::from(!phones.is_empty());
    }
    Ok(ready)
}

/// A program to be made.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    { "name": "Nómina", "scopes": ["tokens:read", "otp:verify"] },
    {
        "name": "Nómina",
        "scopes": ["tokens:read"],
        "jwks": { "keys": [{
            "kty": "EC", "crv": "P-256", "kid": "2026", "alg": "ES256", "use": "sig",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"
        }] }
    },
]))]
pub struct NewClient {
    /// What people call it.
    pub name: Name,
    /// What it may do.
    #[schemars(length(min = 1, max = 13))]
    pub scopes: Vec<ApiScope>,
    /// In whose names it may act: administrators of the company.
    #[serde(default)]
    pub askers: Vec<UserId>,
    /// Its public keys, where it proves itself by a key (`private_key_jwt`). Where there are none
    /// it gets a secret.
    pub jwks: Option<ClientJwks>,
    /// How it asks people's phones for approvals of its own, with the scope `approvals:ask`; by
    /// polling, with a number, if nothing is said.
    pub approvals: Option<ApprovalSettings>,
}

/// An operator makes credentials for a program of a company.
pub async fn create_client(
    app: &App,
    caller: &Caller,
    company: CompanyId,
    new: &NewClient,
) -> Result<Plan<ClientCreated>, Failure> {
    let mut unit = Unit::new(app);
    company_of(&mut unit, company).await?;
    let created = client_in(&mut unit, company, new, caller.actor()).await?;
    Ok(unit.plan(created))
}

/// Credentials, in this unit.
pub async fn client_in(
    unit: &mut Unit<'_>,
    company: CompanyId,
    new: &NewClient,
    actor: Actor,
) -> Result<ClientCreated, Failure> {
    if new.scopes.is_empty() || new.scopes.len() > ApiScope::ALL.len() || new.askers.len() > 100 {
        return Err(Problem::field("#/scopes", "name at least one scope, each once").into());
    }
    if company != CompanyId::BANK
        && let Some(scope) = new.scopes.iter().find(|scope| scope.is_of_bank())
    {
        return Err(Problem::field(
            "#/scopes",
            format!("{scope} is for the bank's programs alone"),
        )
        .into());
    }
    let role = if company == CompanyId::BANK { Role::Operator } else { Role::Administrator };
    for (place, asker) in new.askers.iter().enumerate() {
        let person = unit.get::<User>(company, &asker.to_string()).await?;
        if !person.is_some_and(|person| person.record.active && person.record.role == role) {
            let detail = format!("is no active {} of this company", role.name());
            return Err(Problem::field(format!("#/askers/{place}"), detail).into());
        }
    }
    let keys = match &new.jwks {
        Some(jwks) => {
            jwks.keys().map_err(|(place, what)| Problem::field(format!("#/jwks/{place}"), what))?
        }
        None => Vec::new(),
    };
    let approvals = if new.scopes.contains(&ApiScope::ApprovalsAsk) {
        let settings = new.approvals.clone().unwrap_or_default();
        super::ciba::check(unit.app, &settings, &keys)
            .map_err(|(place, what)| Problem::field(format!("#/approvals{place}"), what))?;
        Some(settings)
    } else if new.approvals.is_some() {
        let detail = "is for programs with the scope approvals:ask";
        return Err(Problem::field("#/approvals", detail).into());
    } else {
        None
    };
    // One way to prove itself, not two.
    let secret = keys
        .is_empty()
        .then(|| base64url::encode(&entropy::bytes::<32>(unit.app.entropy.as_ref())));
    let client = Client {
        id: ClientId::new(unit.now, unit.app.entropy.as_ref()),
        company,
        name: new.name.clone(),
        secret_sha256: secret.as_deref().map(sha256),
        keys,
        scopes: new.scopes.clone(),
        askers: new.askers.clone(),
        approvals,
        active: true,
    };
    reserve(unit, Scope::Client, client.id.to_string(), company, client.id.to_string());
    unit.save(&client);
    let scopes: Vec<_> = client.scopes.iter().map(|scope| scope.name()).collect();
    let subject = Subject { client: Some(client.id), ..Subject::default() };
    let draft = unit.draft(company, "client.created", actor).about(subject);
    unit.record(draft.with("name", &client.name).with("scopes", scopes.join(" ")));
    Ok(ClientCreated { client: ClientView::from(&client), client_secret: secret })
}

/// The programs of a company.
pub async fn list_clients(app: &App, company: CompanyId) -> Result<Page<ClientView>, Failure> {
    show_company(app, company).await?;
    let query = Query::of(Client::TABLE, company, 100);
    let total = app.store.count(&query).await?;
    let found = app.store.find::<Client>(&query).await?;
    let items = found.iter().map(|client| ClientView::from(&client.record)).collect();
    Ok(Page { items, next_cursor: None, total })
}

/// An operator ends a program's credentials: its access tokens die with them.
pub async fn end_client(
    app: &App,
    caller: &Caller,
    company: CompanyId,
    id: ClientId,
) -> Result<Plan<Nothing>, Failure> {
    let mut unit = Unit::new(app);
    let client =
        unit.get::<Client>(company, &id.to_string()).await?.ok_or_else(Problem::not_found)?;
    unit.save(&Client { active: false, ..client.record });
    let subject = Subject { client: Some(id), ..Subject::default() };
    unit.record(unit.draft(company, "client.ended", caller.actor()).about(subject));
    Ok(unit.plan(Nothing {}))
}
