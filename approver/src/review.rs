//! Whether a request is what it says it is. A person only ever sees requests that passed here:
//! signed by the pinned server for this phone, of a known version and action, in time, about the
//! generation this phone holds; that its text shows everything it contains, its type says
//! (security 64, 129, 131).

use semilla_core::id::{DeviceId, OperationId, TokenId};
use semilla_core::language::{Label, Language};
use semilla_core::operations::{self, Cause, SeedEffect};
use semilla_core::protocol::MessageError;
use semilla_core::protocol::approval::{Action, ApprovalRequest, Display};
use semilla_core::protocol::jwk::{JwkSet, PublicKey};
use semilla_core::protocol::{jws, messages};
use semilla_core::time::Timestamp;
use semilla_core::token::Serial;

use crate::errors::Refusal;

/// What a request is checked against. All of it is the phone's own knowledge.
pub(crate) struct Expected<'a> {
    pub(crate) issuer: &'a str,
    pub(crate) jwks: &'a JwkSet,
    pub(crate) device: DeviceId,
    /// The moment it is by the server's clock.
    pub(crate) now: Timestamp,
    /// The generations of a token that this phone holds, live or on their way.
    pub(crate) held: &'a dyn Fn(TokenId) -> Vec<u32>,
}

/// A request that passed: its exact text and what it says. The answer is signed over this text.
#[derive(Clone, Debug)]
pub struct Request {
    text: String,
    claims: ApprovalRequest,
}

/// One of the lines that describe a request: what it is called, and what it is.
pub type Fact = (&'static str, String);

/// The pinned key that a message names.
pub(crate) fn key_of<'a>(text: &str, jwks: &'a JwkSet) -> Result<&'a PublicKey, MessageError> {
    jwks.find(jws::peek(text)?.kid.ok_or(MessageError::Malformed)?)
}

/// Reads a request that was announced as `id`.
pub(crate) fn review(
    id: OperationId,
    text: &str,
    expected: &Expected<'_>,
) -> Result<Request, Refusal> {
    let Expected { issuer, jwks, device, now, held } = expected;
    let key = key_of(text, jwks)?;
    let claims: ApprovalRequest = messages::verify(text, key, issuer, &device.to_string())?;
    messages::check_not_expired(claims.exp, *now)?;
    if claims.txn != id {
        return Err(Refusal::OtherOperation);
    }
    let request = Request { text: text.to_owned(), claims };
    if let Some((token, cause)) = request.token() {
        token.serial.parse::<Serial>().map_err(|_| MessageError::Malformed)?;
        if cause.is_some() && request.cause().is_none() {
            return Err(Refusal::UnknownCause);
        }
        let held = held(token.token);
        if let Some(generation) = held.first()
            && !held.contains(&token.generation)
        {
            return Err(Refusal::Generation { said: token.generation, held: *generation });
        }
    }
    Ok(request)
}

impl From<MessageError> for Refusal {
    fn from(error: MessageError) -> Self {
        Self::Message(error)
    }
}

impl Request {
    /// The operation's id.
    pub fn id(&self) -> OperationId {
        self.claims.txn
    }

    /// The signed text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Everything that was signed.
    pub fn claims(&self) -> &ApprovalRequest {
        &self.claims
    }

    /// When an answer comes too late, by the server's clock.
    pub fn expires_at(&self) -> Timestamp {
        self.claims.exp
    }

    /// The lines that the server wrote for the person: names of company and people among them.
    pub fn display(&self) -> &Display {
        &self.claims.display
    }

    /// What is asked, in a few words of this phone's own.
    pub fn action_label(&self, language: Language) -> &'static str {
        match self.table_action() {
            Some(action) => action.label(language),
            None => match self.claims.operation.action {
                Action::Recover => Label("Recuperar acceso", "Recover access").text(language),
                Action::Consent(_) => {
                    Label("Autorizar a un servicio", "Approve for a service").text(language)
                }
                _ => Label("Vincular otro teléfono", "Bind another phone").text(language),
            },
        }
    }

    /// What was signed as facts, in this phone's own words: they must agree with the server's
    /// lines, and a person can see whether they do.
    pub fn facts(&self, language: Language) -> Vec<Fact> {
        let label = |es, en| Label(es, en).text(language);
        let mut facts = vec![(label("Acción", "Action"), self.action_label(language).to_owned())];
        if let Some((token, _)) = self.token() {
            facts.push((label("Número de Serie", "Serial number"), token.serial.clone()));
        }
        if let Action::Consent(consent) = &self.claims.operation.action {
            facts.extend(consent.facts(language));
        }
        if let Some(cause) = self.cause() {
            facts.push((label("Causal", "Cause"), cause.label(language).to_owned()));
        }
        facts.push((label("Consecuencia", "Consequence"), self.effect(language).to_owned()));
        facts
    }

    /// What happens to the seed, or to the phones, when this is approved.
    pub fn effect(&self, language: Language) -> &'static str {
        let seed = self.table_action().map(|action| action.operation().seed);
        match (seed, &self.claims.operation.action) {
            (Some(SeedEffect::Destroyed), _) => Label(
                "La semilla se destruye: el teléfono del usuario deja de dar códigos válidos. No se puede deshacer.",
                "The seed is destroyed: the user's phone gives no valid codes any more. It cannot be undone.",
            ),
            (Some(SeedEffect::AcceptedAgain), _) => Label(
                "Los códigos de la misma semilla se aceptan otra vez.",
                "Codes of the same seed are accepted again.",
            ),
            (Some(_), _) => Label(
                "Se crea una semilla nueva; la actual vale hasta que la nueva se pruebe con un código.",
                "A new seed is made; the present one holds until a code proves the new one.",
            ),
            (None, Action::Recover) => Label(
                "La persona que perdió sus teléfonos podrá vincular uno nuevo; los anteriores dejan de valer.",
                "The person who lost their phones can bind a new one; the earlier ones no longer count.",
            ),
            (None, Action::Consent(_)) => Label(
                "El servicio recibe su autorización firmada. Ningún token ni teléfono cambia.",
                "The service is given your signed approval. No token and no phone changes.",
            ),
            (None, _) => Label(
                "Otro teléfono podrá dar códigos y autorizar en su nombre.",
                "Another phone will be able to give codes and authorize in your name.",
            ),
        }
        .text(language)
    }

    /// Whether it takes something away for good.
    pub fn is_final(&self) -> bool {
        matches!(self.claims.operation.action, Action::Release { .. } | Action::Recover)
    }

    /// Whether the number on the asker's screen has to be typed: always, but for a service that
    /// shows none.
    pub fn wants_number(&self) -> bool {
        !matches!(&self.claims.operation.action, Action::Consent(consent) if !consent.number)
    }

    fn token(&self) -> Option<(&semilla_core::protocol::approval::TokenRef, Option<&str>)> {
        match &self.claims.operation.action {
            Action::Release { token, cause } | Action::Rotate { token, cause } => {
                Some((token, Some(cause)))
            }
            Action::Unblock { token } => Some((token, None)),
            Action::BindPhone | Action::Recover | Action::Consent(_) => None,
        }
    }

    fn table_action(&self) -> Option<operations::Action> {
        match self.claims.operation.action {
            Action::Release { .. } => Some(operations::Action::Release),
            Action::Unblock { .. } => Some(operations::Action::Unblock),
            Action::Rotate { .. } => Some(operations::Action::Rotate),
            Action::BindPhone | Action::Recover | Action::Consent(_) => None,
        }
    }

    /// The cause, where it is one that the table has for this action.
    fn cause(&self) -> Option<Cause> {
        let name = self.token()?.1?;
        let causes = self.table_action()?.operation().causes;
        causes.iter().copied().find(|cause| cause.name() == name)
    }
}
