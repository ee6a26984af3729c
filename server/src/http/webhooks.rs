//! Webhooks in the company API: where a company wants to be told of what happens to it.

use std::borrow::Cow;
use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::State;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use semilla_core::id::WebhookId;
use semilla_core::problem::ProblemType::StateConflict;

use super::change::{Change, act};
use super::company::Empty;
use super::params::{Id, Ids, Query};
use super::respond::{Answered, shown};
use super::{Edge, Route, Rule, delete, get, patch, post};
use crate::records::ApiScope;
use crate::webhooks::{
    self, DeliveryListing, DeliveryView, NewWebhook, Replay, WebhookChange, WebhookCreated,
    WebhookSecret, WebhookView,
};
use crate::workflow::caller::Caller;
use crate::workflow::views::{Nothing, Page};

/// What can be asked, and which scope it needs.
pub(super) fn routes() -> Vec<Route> {
    let hooks = Rule::Scope(&[ApiScope::WebhooksManage]);
    vec![
        get("/api/v1/webhooks", hooks, list)
            .says("Los webhooks de la empresa", "The company's webhooks"),
        post("/api/v1/webhooks", hooks, create)
            .says(
                "Crear un webhook; su secreto se muestra esta vez",
                "Make a webhook; its secret is shown this once",
            )
            .may(&[StateConflict]),
        get("/api/v1/webhooks/{id}", hooks, show).says("Un webhook", "One webhook"),
        patch("/api/v1/webhooks/{id}", hooks, change)
            .says("Cambiar, pausar o reanudar un webhook", "Change, pause or resume a webhook"),
        delete("/api/v1/webhooks/{id}", hooks, remove)
            .says("Eliminar un webhook", "Remove a webhook"),
        post("/api/v1/webhooks/{id}/rotate-secret", hooks, rotate_secret).says(
            "Renovar el secreto; el anterior firma un día más",
            "Renew the secret; the old one signs for one more day",
        ),
        post("/api/v1/webhooks/{id}/test", hooks, test)
            .says("Enviar un evento de prueba", "Send an event as a test"),
        post("/api/v1/webhooks/{id}/replay", hooks, replay).says(
            "Enviar otra vez todo lo posterior a un registro",
            "Send everything behind a record once more",
        ),
        get("/api/v1/webhooks/{id}/deliveries", hooks, deliveries)
            .says("Los envíos, del más nuevo al más viejo", "The deliveries, the newest first"),
        post("/api/v1/webhooks/{id}/deliveries/{delivery}/replay", hooks, replay_one)
            .says("Enviar otra vez, ahora", "Send one once more, now"),
    ]
}

type Here = State<Arc<Edge>>;

async fn list(State(edge): Here, caller: Caller) -> Answered<Page<WebhookView>> {
    shown(webhooks::list(&edge.app, &caller).await)
}

async fn create(
    State(edge): Here,
    caller: Caller,
    change: Change<NewWebhook>,
) -> Answered<WebhookCreated> {
    let Change { body, key, .. } = change;
    act(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { webhooks::create(&app, &caller, &body).await }
    })
    .await
}

async fn show(State(edge): Here, caller: Caller, Id(id): Id<WebhookId>) -> Answered<WebhookView> {
    shown(webhooks::show(&edge.app, &caller, id).await)
}

async fn change(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<WebhookId>,
    change: Change<WebhookChange>,
) -> Answered<WebhookView> {
    let Change { body, if_match, key } = change;
    act(&edge, key, caller, move |app, caller| {
        let body = body.clone();
        async move { webhooks::change(&app, &caller, id, &body, if_match).await }
    })
    .await
}

async fn remove(State(edge): Here, caller: Caller, Id(id): Id<WebhookId>) -> Answered<Nothing> {
    act(
        &edge,
        None,
        caller,
        move |app, caller| async move { webhooks::remove(&app, &caller, id).await },
    )
    .await
}

async fn rotate_secret(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<WebhookId>,
    change: Change<Empty>,
) -> Answered<WebhookSecret> {
    act(&edge, change.key, caller, move |app, caller| async move {
        webhooks::rotate_secret(&app, &caller, id).await
    })
    .await
}

async fn test(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<WebhookId>,
    change: Change<Empty>,
) -> Answered<WebhookView> {
    act(&edge, change.key, caller, move |app, caller| async move {
        webhooks::test(&app, &caller, id).await
    })
    .await
}

async fn replay(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<WebhookId>,
    change: Change<Replay>,
) -> Answered<WebhookView> {
    let Change { body, key, .. } = change;
    act(&edge, key, caller, move |app, caller| async move {
        webhooks::replay(&app, &caller, id, body).await
    })
    .await
}

async fn deliveries(
    State(edge): Here,
    caller: Caller,
    Id(id): Id<WebhookId>,
    Query(listing): Query<DeliveryListing>,
) -> Answered<Page<DeliveryView>> {
    shown(webhooks::deliveries(&edge.app, &caller, id, &listing).await)
}

async fn replay_one(
    State(edge): Here,
    caller: Caller,
    Ids(id, delivery): Ids<WebhookId, DeliveryName>,
    change: Change<Empty>,
) -> Answered<DeliveryView> {
    act(&edge, change.key, caller, move |app, caller| {
        let delivery = delivery.clone();
        async move { webhooks::replay_one(&app, &caller, id, &delivery.0).await }
    })
    .await
}

/// The name of a delivery, as `webhook-id` tells it.
#[derive(Clone)]
struct DeliveryName(String);

impl JsonSchema for DeliveryName {
    fn schema_name() -> Cow<'static, str> {
        "DeliveryName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A delivery, its `webhook-id`",
            "examples": ["msg_019ac6a5-1c00-7000-8000-000000000008_00000000000000000007"],
        })
    }
}

impl FromStr for DeliveryName {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}
