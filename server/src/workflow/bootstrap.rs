//! The beginning: the bank itself, its first operator and the credentials of that operator's
//! program. Done once, by somebody at the machine; nothing else makes an operator out of nothing
//! (security 81).

use semilla_core::audit::Actor;
use semilla_core::id::CompanyId;
use semilla_core::person::{Company, Role};
use semilla_core::policy::Policy;
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::text::Name;

use super::people::{NewClient, NewUser, client_in, new_user};
use super::unit::Unit;
use super::views::ClientCreated;
use super::{Failure, Plan};
use crate::app::App;
use crate::records::ApiScope;

/// Makes the bank, its first operator and a program for them. Refused where there is a bank.
pub async fn bank(
    app: &App,
    name: &Name,
    operator: &NewUser,
) -> Result<Plan<ClientCreated>, Failure> {
    let mut unit = Unit::new(app);
    if unit.get::<Company>(CompanyId::BANK, &CompanyId::BANK.to_string()).await?.is_some() {
        return Err(
            Problem::new(ProblemType::StateConflict, "This folder holds a bank already.").into()
        );
    }
    unit.save(&Company {
        id: CompanyId::BANK,
        name: name.clone(),
        active: true,
        policy: Policy::DEFAULT,
        created: unit.now,
    });
    unit.record(unit.draft(CompanyId::BANK, "bank.created", Actor::Local).with("name", name));
    let operator = NewUser { role: Role::Operator, ..operator.clone() };
    let operator = new_user(&mut unit, CompanyId::BANK, &operator, Actor::Local).await?;
    let client = NewClient {
        name: operator.name.clone(),
        scopes: vec![
            ApiScope::StockManage,
            ApiScope::CompaniesManage,
            ApiScope::UsersManage,
            ApiScope::EnrollmentsDeliver,
            ApiScope::TokensRelease,
            ApiScope::AuditRead,
        ],
        askers: vec![operator.id],
        jwks: None,
        approvals: None,
    };
    let created = client_in(&mut unit, CompanyId::BANK, &client, Actor::Local).await?;
    Ok(unit.plan(created))
}
