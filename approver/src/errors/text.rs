//! The explanations, in both languages, Spanish first.

use semilla_core::language::{Label, Language};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::wire::OperationState;

use super::details::{input_text, store_text};
use super::{Error, StoreFault};

/// An error as a person reads it. Both parts are whole sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What happened.
    pub what: String,
    /// What to do next.
    pub next: String,
}

/// Both parts in both languages: what in Spanish, next in Spanish, then the same in English.
struct Texts([&'static str; 4]);

impl Texts {
    fn in_language(self, language: Language) -> Explanation {
        let [what_es, next_es, what_en, next_en] = self.0;
        Explanation {
            what: Label(what_es, what_en).text(language).to_owned(),
            next: Label(next_es, next_en).text(language).to_owned(),
        }
    }
}

pub(super) fn explain(error: &Error, language: Language) -> Explanation {
    let fill = |texts: [&'static str; 4], value: &str| {
        let Explanation { what, next } = Texts(texts).in_language(language);
        Explanation { what: what.replace("{}", value), next: next.replace("{}", value) }
    };
    match error {
        Error::WhichAccount(accounts) => fill(
            [
                "Este teléfono tiene varias vinculaciones: {}.",
                "Diga cuál con --account o --server.",
                "This phone has several bindings: {}.",
                "Say which one with --account or --server.",
            ],
            &accounts.join(", "),
        ),
        Error::AlreadyBound(server) => fill(
            [
                "Este teléfono ya está vinculado a {}.",
                "Para recibir lo que espera use «approver enroll»; para otra persona, «bind --another».",
                "This phone is already bound to {}.",
                "To take what waits use `approver enroll`; for another person, `bind --another`.",
            ],
            server,
        ),
        Error::UnknownToken(serial) => fill(
            [
                "Este teléfono no tiene el token {}.",
                "«approver tokens» muestra los que tiene; si era suyo, fue liberado o renovado.",
                "This phone does not have the token {}.",
                "`approver tokens` lists those it has; if it was yours, it was released or renewed.",
            ],
            serial,
        ),
        Error::WhichToken(serials) => fill(
            [
                "Este teléfono tiene varios tokens: {}.",
                "Diga cuál con su número de serie.",
                "This phone has several tokens: {}.",
                "Name one by its serial number.",
            ],
            &serials.join(", "),
        ),
        Error::UnknownRequest(id) => fill(
            [
                "La solicitud {} no está en la bandeja.",
                "Pudo vencer, cancelarse o decidirse en otro teléfono; vea «approver inbox».",
                "The request {} is not in the inbox.",
                "It may have expired, been cancelled or decided on another phone; see `approver inbox`.",
            ],
            &id.to_string(),
        ),
        Error::WhichRequest(ids) => fill(
            [
                "Hay varias solicitudes: {}.",
                "Diga cuál con el final de su id.",
                "There are several requests: {}.",
                "Name one by the end of its id.",
            ],
            &ids.join(", "),
        ),
        Error::NoUnusedCode(at) => fill(
            [
                "Todos los códigos que el servidor aceptaría ahora ya se entregaron.",
                "El próximo sale a las {}; espere con --timeout o pida uno sin --unused.",
                "Every code that the server would accept now was handed out before.",
                "The next comes at {}; wait with --timeout or ask without --unused.",
            ],
            &at.to_string(),
        ),
        Error::WrongPin(left) => fill(
            [
                "El PIN no es correcto.",
                "Quedan {} intentos; después se borra todo lo que guarda este teléfono.",
                "The PIN is wrong.",
                "{} tries are left; after them everything on this phone is erased.",
            ],
            &left.to_string(),
        ),
        Error::ClockSkew(seconds) if *seconds >= 0 => fill(
            [
                "El reloj de este teléfono está {} s atrasado: sus códigos serían rechazados.",
                "Ponga el reloj en hora; --offline muestra el código de todas formas.",
                "This phone's clock is {} s slow: its codes would be refused.",
                "Set the clock; --offline shows the code all the same.",
            ],
            &seconds.to_string(),
        ),
        Error::ClockSkew(seconds) => fill(
            [
                "El reloj de este teléfono está {} s adelantado: sus códigos serían rechazados.",
                "Ponga el reloj en hora; --offline muestra el código de todas formas.",
                "This phone's clock is {} s fast: its codes would be refused.",
                "Set the clock; --offline shows the code all the same.",
            ],
            &seconds.unsigned_abs().to_string(),
        ),
        Error::Unreachable(server, why) => fill(
            [
                "No se pudo hablar con el servidor {}.",
                "Revise la red y la dirección e intente de nuevo; los códigos funcionan sin red.",
                "The server cannot be reached: {}.",
                "Check network and address and try again; codes work without a network.",
            ],
            &format!("{server} ({why})"),
        ),
        Error::InClear(server) => fill(
            [
                "{} va sin cifrar (http), y no es esta misma máquina.",
                "Use la dirección https:// del servidor.",
                "{} is in clear (http), and is not this machine.",
                "Use the server's https:// address.",
            ],
            server,
        ),
        Error::UnexpectedAnswer(what) => fill(
            [
                "El servidor respondió algo fuera del protocolo: {}.",
                "Revise que la dirección sea la de Semilla y que ambos programas estén al día.",
                "The server answered something outside the protocol: {}.",
                "Check that the address is that of Semilla and that both programs are up to date.",
            ],
            what,
        ),
        Error::Store(StoreFault::Io(why)) => fill(
            [
                "El sistema no dejó leer o escribir el almacén: {}.",
                "Revise espacio y permisos; lo guardado antes sigue intacto.",
                "The system did not let the store be read or written: {}.",
                "Check space and permissions; what was saved before is intact.",
            ],
            why,
        ),
        Error::Store(StoreFault::Version(version)) => fill(
            [
                "El almacén tiene la versión {}, que este programa no conoce.",
                "Use el programa más nuevo que lo escribió.",
                "The store has version {}, which this program does not know.",
                "Use the newer program that wrote it.",
            ],
            &version.to_string(),
        ),
        Error::MessageRefused(refusal) => fill(
            [
                "Se rechazó un mensaje del servidor: {}.",
                "No autorice nada por otra vía; avise al banco.",
                "A message of the server was refused: {}.",
                "Do not authorize it in another way; tell the bank.",
            ],
            &refusal.text(language),
        ),
        Error::Problem(problem) => problem_text(problem, language),
        other => plain(other).in_language(language),
    }
}

fn plain(error: &Error) -> Texts {
    Texts(match error {
        Error::Input(input) => input_text(*input),
        Error::NotBound => [
            "Este teléfono aún no está vinculado.",
            "Pida un código de activación y use «approver bind».",
            "This phone is not bound yet.",
            "Ask for an activation code and use `approver bind`.",
        ],
        Error::NoToken => [
            "Este teléfono no tiene tokens.",
            "Si le asignaron uno, recíbalo con «approver enroll».",
            "This phone has no tokens.",
            "If one was assigned to you, take it with `approver enroll`.",
        ],
        Error::NothingToEnroll => [
            "Nada espera ser inscrito en este teléfono.",
            "Pida a su administrador que le asigne un token.",
            "Nothing waits to be enrolled on this phone.",
            "Ask your administrator to assign you a token.",
        ],
        Error::NoRequest => [
            "No hay ninguna solicitud así en la bandeja.",
            "Vea «approver inbox»; pudo vencer, cancelarse o decidirse en otro teléfono.",
            "There is no such request in the inbox.",
            "See `approver inbox`; it may have expired, been cancelled or decided on another phone.",
        ],
        Error::TimedOut => [
            "La espera terminó sin novedad.",
            "Intente de nuevo, o espere más con --timeout.",
            "The wait ended without news.",
            "Try again, or wait longer with --timeout.",
        ],
        Error::Ended(OperationState::Denied) => [
            "La operación fue denegada.",
            "Nada cambió; quien la pidió puede pedirla de nuevo.",
            "The operation was denied.",
            "Nothing has changed; whoever asked can ask again.",
        ],
        Error::Ended(_) => [
            "La operación terminó sin ejecutarse.",
            "Algo cambió mientras tanto; quien la pidió puede pedirla de nuevo.",
            "The operation ended without being executed.",
            "Something changed meanwhile; whoever asked can ask again.",
        ],
        Error::Revoked => [
            "El servidor ya no confía en este teléfono; sus semillas se borraron de aquí.",
            "Vincúlelo de nuevo con un código de activación nuevo.",
            "The server no longer trusts this phone; its seeds were erased here.",
            "Bind it again with a new activation code.",
        ],
        Error::Waiting => [
            "Falta que el teléfono que ya tenía autorice este.",
            "Apruebe allí la solicitud con el número que mostró este; «approver accounts» lo repite.",
            "The phone you had before has yet to agree to this one.",
            "Approve the request there with the number shown here; `approver accounts` repeats it.",
        ],
        Error::Suspended => [
            "El servidor vio dos copias de este teléfono y no confía en ninguna.",
            "Pida a su administrador que lo revoque, y vincúlelo de nuevo.",
            "The server has seen two copies of this phone and trusts neither.",
            "Ask your administrator to revoke it, and bind it again.",
        ],
        Error::Wiped => [
            "Demasiados PIN incorrectos: lo que guardaba este teléfono se borró.",
            "Avise a su administrador y vincúlelo de nuevo con «approver bind».",
            "Too many wrong PINs: what this phone held was erased.",
            "Tell your administrator and bind it again with `approver bind`.",
        ],
        Error::Locked => [
            "Hace falta el PIN otra vez.",
            "Ingrese el PIN actual; cada autorización lo pide.",
            "The PIN is needed again.",
            "Enter the present PIN; every approval asks for it.",
        ],
        Error::Store(fault) => store_text(fault),
        // `Expired`; the others have a value and were told above.
        _ => [
            "El plazo venció.",
            "Quien lo pidió puede pedirlo de nuevo.",
            "The time is over.",
            "Whoever asked can ask again.",
        ],
    })
}

/// The server's own detail is in English and goes to people who read English; the others get the
/// same in their words.
fn problem_text(problem: &Problem, language: Language) -> Explanation {
    let texts = match problem.kind {
        ProblemType::NumberMismatch => [
            "El número no es el que muestra la pantalla: la operación terminó sin ejecutarse.",
            "Si usted la pidió, empiece de nuevo; si no, avise al banco.",
            "The number is not the one on the screen: the operation ended without being executed.",
            "If it was yours, start again; if not, tell the bank.",
        ],
        ProblemType::ActivationInvalid => [
            "El código de activación no es válido: está mal escrito, usado o vencido.",
            "Revíselo, o pida uno nuevo.",
            "The activation code is not valid: mistyped, used or expired.",
            "Check it, or ask for a new one.",
        ],
        ProblemType::ApprovalAlreadyDecided => [
            "Esta solicitud ya fue decidida.",
            "No hay nada más que hacer.",
            "This request was already decided.",
            "There is nothing more to do.",
        ],
        ProblemType::TokenLocked => [
            "Demasiados códigos incorrectos: el token está en espera.",
            "Espere antes de intentar de nuevo.",
            "Too many wrong codes: the token has to wait.",
            "Wait before trying again.",
        ],
        ProblemType::RateLimited | ProblemType::Unavailable => [
            "El servidor está ocupado.",
            "Espere un momento e intente de nuevo.",
            "The server is busy.",
            "Wait a moment and try again.",
        ],
        ProblemType::Unauthenticated | ProblemType::SignatureInvalid => [
            "El servidor no reconoce a este teléfono.",
            "Si sigue así, vincúlelo de nuevo con un código de activación nuevo.",
            "The server does not recognize this phone.",
            "If that goes on, bind it again with a new activation code.",
        ],
        ProblemType::CodeInvalid => [
            "El servidor no aceptó el código de la semilla nueva.",
            "Ponga en hora el reloj del teléfono y repita «approver enroll».",
            "The server did not accept the code of the new seed.",
            "Set the phone's clock and repeat `approver enroll`.",
        ],
        ProblemType::Internal => [
            "El servidor tuvo un error.",
            "Intente de nuevo; si sigue, avise al banco.",
            "The server had an error.",
            "Try again; if it goes on, tell the bank.",
        ],
        _ => [
            "El servidor no lo permite en este momento.",
            "Vea el estado con «approver tokens» y «approver devices».",
            "The server does not allow this now.",
            "See the state with `approver tokens` and `approver devices`.",
        ],
    };
    let mut explanation = Texts(texts).in_language(language);
    if language == Language::English && !problem.detail.is_empty() {
        // Whoever answers could be anybody: nothing in it may reach a terminal as a command.
        let detail = problem.detail.replace(char::is_control, " ");
        explanation.what = format!("{} ({detail})", explanation.what);
    }
    explanation
}
