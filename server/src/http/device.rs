//! The device API (`/device/v1`): what phones can ask. Its bodies are
//! [`semilla_core::protocol::wire`]; what decides anything is in the signed messages they carry.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use semilla_core::id::{DeviceId, EnrollmentId, OperationId, TokenId};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::wire;

use super::body::Json;
use super::change::{act, to_the_end};
use super::describe::Text;
use super::limits::retry_after;
use super::params::{Id, Query};
use super::problem::ApiError;
use super::respond::{Answered, shown};
use super::wait::{self, Events, Told, Wait};
use super::{Edge, Route, Rule, delete, get, post};
use crate::listener::Peer;
use crate::store::Topic;
use crate::workflow::caller::Phone;
use crate::workflow::codes::Sent;
use crate::workflow::devices::KeyChanged;
use crate::workflow::enrollments::Confirming;
use crate::workflow::views::Nothing;
use crate::workflow::{approvals, devices, enrollments};

/// What can be asked under `/device/v1`, and by which phones.
pub(super) fn routes() -> Vec<Route> {
    let (bound, known) = (Rule::BoundPhone, Rule::KnownPhone);
    use ProblemType::{
        ActivationInvalid, ApprovalAlreadyDecided, ApprovalExpired, CodeInvalid, DeliveryExpired,
        NotFound, NumberMismatch, RateLimited, RequestHashMismatch, SelfApproval, SignatureInvalid,
        StateConflict, TokenLocked,
    };
    vec![
        post("/device/v1/bindings/start", Rule::Public, start_binding)
            .says("Empezar a vincular un teléfono", "Begin to bind a phone")
            .may(&[ActivationInvalid, RateLimited]),
        post("/device/v1/bindings", Rule::Public, bind)
            .says("Vincular el teléfono (bind+jwt)", "Bind the phone (bind+jwt)")
            .may(&[ActivationInvalid, RateLimited, SignatureInvalid, StateConflict]),
        get("/device/v1/tokens", bound, held_tokens)
            .says("Los tokens de la persona", "The person's tokens"),
        post("/device/v1/tokens/{id}/rotate", bound, rotate)
            .says(
                "Renovar la semilla propia (rotate-request+jwt)",
                "Renew one's own seed (rotate-request+jwt)",
            )
            .may(&[SignatureInvalid, StateConflict, NotFound]),
        get("/device/v1/devices", known, own_devices)
            .says("Los teléfonos de la persona", "The person's phones"),
        delete("/device/v1/devices/{id}", bound, revoke_own)
            .says("Revocar otro teléfono propio", "Revoke another phone of one's own")
            .may(&[StateConflict]),
        get("/device/v1/enrollments", bound, open_enrollments)
            .says("Lo que espera ser activado", "What waits to be enrolled"),
        post("/device/v1/enrollments", bound, enroll)
            .says("Recibir la semilla sellada (enroll+jwt)", "Receive the sealed seed (enroll+jwt)")
            .may(&[SignatureInvalid, StateConflict, DeliveryExpired, NotFound]),
        get("/device/v1/enrollments/{id}", bound, delivered)
            .says("La misma semilla sellada otra vez", "The same sealed seed again")
            .may(&[StateConflict, DeliveryExpired]),
        post("/device/v1/enrollments/{id}/confirm", bound, confirm)
            .says(
                "Confirmar con un código de la semilla nueva",
                "Confirm with a code of the new seed",
            )
            .may(&[StateConflict, DeliveryExpired, CodeInvalid, TokenLocked]),
        get("/device/v1/approvals", bound, inbox)
            .says(
                "Lo que espera la respuesta de este teléfono",
                "What waits for this phone's answer",
            )
            .waiting(),
        post("/device/v1/approvals/{id}/response", bound, respond)
            .says("Responder (approval-response+jwt)", "Answer (approval-response+jwt)")
            .may(&[
                SignatureInvalid,
                RequestHashMismatch,
                NumberMismatch,
                ApprovalExpired,
                ApprovalAlreadyDecided,
                SelfApproval,
                StateConflict,
                NotFound,
            ]),
        get("/device/v1/stream", bound, stream)
            .says("Solicitudes a medida que llegan (eventos)", "Requests as they come (events)")
            .waiting()
            .may(&[RateLimited]),
        post("/device/v1/keys", bound, change_key)
            .says(
                "Cambiar la llave del teléfono (key-change+jwt)",
                "Change the phone's key (key-change+jwt)",
            )
            .may(&[SignatureInvalid, StateConflict]),
        delete("/device/v1/me", known, leave)
            .says("Desvincular este teléfono", "Unbind this phone"),
    ]
}

type Here = State<Arc<Edge>>;

/// Strangers who try codes pay for it from their own address's budget.
fn take_turn(edge: &Edge, peer: Peer) -> Result<(), ApiError> {
    edge.bindings.take(peer.0).map_err(|wait| {
        let detail = "Too many bindings from this address: wait.";
        Problem::new(ProblemType::RateLimited, detail).retry_after(retry_after(wait)).into()
    })
}

async fn start_binding(
    State(edge): Here,
    Extension(peer): Extension<Peer>,
    Json(start): Json<wire::BindingStart>,
) -> Answered<wire::BindingStarted> {
    take_turn(&edge, peer)?;
    act(&edge, None, start.activation, |app, name| async move { devices::start(&app, &name).await })
        .await
}

async fn bind(
    State(edge): Here,
    Extension(peer): Extension<Peer>,
    Json(signed): Json<wire::Signed>,
) -> Answered<wire::Bound> {
    take_turn(&edge, peer)?;
    act(&edge, None, signed.message, |app, text| async move { devices::bind(&app, &text).await })
        .await
}

async fn held_tokens(State(edge): Here, phone: Phone) -> Answered<wire::HeldTokens> {
    shown(devices::held(&edge.app, &phone).await)
}

async fn rotate(
    State(edge): Here,
    phone: Phone,
    Id(id): Id<TokenId>,
    Json(signed): Json<wire::Signed>,
) -> Answered<wire::Rotating> {
    act(&edge, None, (phone, signed.message), move |app, (phone, text)| async move {
        enrollments::rotate(&app, &phone, id, &text).await
    })
    .await
}

async fn own_devices(State(edge): Here, phone: Phone) -> Answered<wire::Devices> {
    shown(devices::own(&edge.app, &phone).await)
}

async fn revoke_own(State(edge): Here, phone: Phone, Id(id): Id<DeviceId>) -> Answered<Nothing> {
    act(
        &edge,
        None,
        phone,
        move |app, phone| async move { devices::revoke_own(&app, &phone, id).await },
    )
    .await
}

async fn open_enrollments(State(edge): Here, phone: Phone) -> Answered<wire::OpenEnrollments> {
    shown(enrollments::waiting(&edge.app, &phone).await)
}

async fn enroll(
    State(edge): Here,
    phone: Phone,
    Json(signed): Json<wire::Signed>,
) -> Answered<wire::Signed> {
    act(&edge, None, (phone, signed.message), move |app, (phone, text)| async move {
        enrollments::deliver(&app, &phone, &text).await
    })
    .await
}

async fn delivered(
    State(edge): Here,
    phone: Phone,
    Id(id): Id<EnrollmentId>,
) -> Answered<wire::Signed> {
    shown(enrollments::delivered(&edge.app, &phone, id).await)
}

async fn confirm(
    State(edge): Here,
    phone: Phone,
    Id(id): Id<EnrollmentId>,
    Json(confirm): Json<wire::Confirm>,
) -> Answered<wire::Confirmed> {
    let (app, by) = (Arc::clone(&edge.app), Confirming::Phone(Box::new(phone)));
    let work =
        async move { enrollments::confirm(&app, by, id, Sent::One(Some(confirm.code))).await };
    shown(to_the_end(work).await)
}

/// What waits for an answer of this phone: at once, or as soon as there is something.
async fn inbox(
    State(edge): Here,
    phone: Phone,
    Query(wait): Query<Wait>,
) -> Answered<wire::Approvals> {
    let topic = Topic::Device(phone.device.record.id.to_string());
    let found = wait::wait_for(&edge.app, &topic, wait.patience()?, || async {
        let waiting = approvals::inbox(&edge.app, &phone).await?;
        Ok((!waiting.approvals.is_empty()).then_some(waiting))
    });
    let nothing = wire::Approvals { approvals: Vec::new() };
    shown(found.await.map(|found| found.unwrap_or(nothing)))
}

async fn respond(
    State(edge): Here,
    phone: Phone,
    Id(id): Id<OperationId>,
    Json(signed): Json<wire::Signed>,
) -> Answered<wire::Answered> {
    act(&edge, None, (phone, signed.message), move |app, (phone, text)| async move {
        approvals::answer(&app, &phone, id, &text).await
    })
    .await
}

/// Requests as they come, each once in a stream.
async fn stream(State(edge): Here, phone: Phone) -> Result<Text<Events>, ApiError> {
    let topic = Topic::Device(phone.device.record.id.to_string());
    let none = (phone, BTreeSet::new());
    wait::stream(
        &edge,
        topic,
        none,
        |app, (phone, told): (Phone, BTreeSet<OperationId>)| async move {
            let waiting = approvals::inbox(&app, &phone).await?.approvals;
            let new: Vec<_> =
                waiting.iter().filter(|approval| !told.contains(&approval.id)).collect();
            if new.is_empty() {
                return Ok(None);
            }
            let events = new.into_iter().map(|approval| Told {
                id: None,
                event: "approval",
                data: serde_json::to_string(approval).unwrap_or_default(),
            });
            let told = waiting.iter().map(|approval| approval.id).collect();
            Ok(Some((events.collect(), (phone, told))))
        },
    )
}

async fn change_key(
    State(edge): Here,
    phone: Phone,
    Json(signed): Json<wire::Signed>,
) -> Answered<KeyChanged> {
    act(&edge, None, (phone, signed.message), move |app, (phone, text)| async move {
        devices::change_key(&app, &phone, &text).await
    })
    .await
}

async fn leave(State(edge): Here, phone: Phone) -> Answered<Nothing> {
    act(&edge, None, phone, move |app, phone| async move { devices::leave(&app, &phone).await })
        .await
}
