//! The explanations, in both languages, Spanish first.

use semilla_core::language::{Label, Language};
use semilla_core::problem::{Problem, ProblemType};
use semilla_core::protocol::MessageError;
use semilla_core::protocol::wire::OperationState;

use super::{Error, Input, Refusal, StoreFault};

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
        Error::HttpsNotYet(server) => fill(
            [
                "{} es una dirección HTTPS, que este programa aún no habla.",
                "Use la dirección http:// del servidor en la misma máquina.",
                "{} is an HTTPS address, which this program does not speak yet.",
                "Use the server's http:// address on the same machine.",
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

fn input_text(input: Input) -> [&'static str; 4] {
    match input {
        Input::Activation => [
            "Eso no es un código de activación ni una dirección semilla://.",
            "El código tiene 16 letras y cifras en grupos de cuatro.",
            "That is neither an activation code nor a semilla:// address.",
            "The code has 16 letters and digits in groups of four.",
        ],
        Input::ServerMissing => [
            "Falta la dirección del servidor.",
            "Use --server o SEMILLA_APPROVER_SERVER, o lea el código QR.",
            "The server's address is missing.",
            "Use --server or SEMILLA_APPROVER_SERVER, or read the QR code.",
        ],
        Input::ServerAddress => [
            "La dirección del servidor no sirve.",
            "Escríbala como http://127.0.0.1:8080.",
            "The server's address cannot be used.",
            "Write it like http://127.0.0.1:8080.",
        ],
        Input::QrImage => [
            "La imagen no tiene un código QR legible.",
            "Use un archivo PNG con un solo código, nítido y completo.",
            "The image has no readable QR code.",
            "Use a PNG file with one code, sharp and whole.",
        ],
        Input::PinForm => [
            "Un PIN tiene de 6 a 32 cifras y nada más.",
            "Elija o escriba otro.",
            "A PIN has 6 to 32 digits and nothing else.",
            "Choose or type another.",
        ],
        Input::PinCommon => [
            "Ese PIN es de los primeros que todos prueban.",
            "Elija otro que no sea una serie ni una repetición.",
            "That PIN is among the first that everybody tries.",
            "Choose another, neither a run nor a repetition.",
        ],
        Input::PinRepetition => [
            "Los dos PIN no son iguales.",
            "Empiece de nuevo.",
            "The two PINs differ.",
            "Start again.",
        ],
        Input::PinSource => [
            "No hay terminal donde pedir lo que falta.",
            "Use --pin-file o --pin-stdin, y las demás opciones de este comando.",
            "There is no terminal to ask on.",
            "Use --pin-file or --pin-stdin, and the other options of this command.",
        ],
        Input::Number => [
            "El número que muestra la pantalla de quien pide tiene seis cifras.",
            "Escríbalo tal como aparece, con sus ceros.",
            "The number on the asker's screen has six digits.",
            "Type it as it is shown, zeros included.",
        ],
        Input::MinTtl => [
            "Ningún código dura tanto.",
            "Pida menos segundos con --min-ttl.",
            "No code lives that long.",
            "Ask for fewer seconds with --min-ttl.",
        ],
        Input::Name => [
            "Ese nombre no se puede mostrar.",
            "Use de 1 a 100 caracteres visibles.",
            "That name cannot be shown.",
            "Use 1 to 100 visible characters.",
        ],
        Input::File => [
            "El archivo indicado no se pudo leer.",
            "Revise la ruta y los permisos.",
            "The named file cannot be read.",
            "Check its path and permissions.",
        ],
    }
}

fn store_text(fault: &StoreFault) -> [&'static str; 4] {
    match fault {
        StoreFault::Missing => [
            "Aquí no hay ningún teléfono.",
            "Cree uno con «approver bind», o indique su carpeta con --store.",
            "There is no phone here.",
            "Make one with `approver bind`, or name its folder with --store.",
        ],
        StoreFault::Exists => [
            "Aquí ya hay un teléfono.",
            "Use otra carpeta con --store.",
            "There is a phone here already.",
            "Use another folder with --store.",
        ],
        StoreFault::Permissions => [
            "Otros usuarios pueden leer el almacén.",
            "Use chmod 700 en su carpeta y chmod 600 en sus archivos.",
            "Other users can read the store.",
            "Use chmod 700 on its folder and chmod 600 on its files.",
        ],
        StoreFault::Busy => [
            "Otro programa de este teléfono está enviando un mensaje.",
            "Espere a que termine e intente de nuevo.",
            "Another program of this phone is sending a message.",
            "Wait until it has ended and try again.",
        ],
        // `Damaged`; the others have a value and were told above.
        _ => [
            "El almacén está dañado: le falta una parte o fue modificado.",
            "Restaure una copia, o borre la carpeta y vincule el teléfono de nuevo.",
            "The store is damaged: a part is missing or was changed.",
            "Restore a copy, or remove the folder and bind the phone again.",
        ],
    }
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

impl Refusal {
    /// Why, as the middle of a sentence.
    pub fn text(&self, language: Language) -> String {
        let label = match self {
            Self::Message(MessageError::WrongKey | MessageError::WrongIssuer) => {
                Label("no es del servidor de este teléfono", "it is not from this phone's server")
            }
            Self::Message(MessageError::BadSignature) => {
                Label("fue alterado", "it was altered on its way")
            }
            Self::Message(MessageError::WrongAudience) => {
                Label("es para otro teléfono", "it is for another phone")
            }
            Self::Message(MessageError::WrongVersion) => Label(
                "es de una versión que este programa no conoce",
                "it has a version that this program does not know",
            ),
            Self::Message(MessageError::WrongMac) => Label(
                "el código de activación no responde por ese servidor",
                "the activation code does not vouch for that server",
            ),
            Self::Message(MessageError::NotOpened) | Self::Seed => Label(
                "la semilla no es para este teléfono y este pedido",
                "the seed is not for this phone and this request",
            ),
            Self::Message(MessageError::Expired) => Label("venció", "its time is over"),
            Self::Message(_) => Label(
                "no tiene la forma debida o pide algo desconocido",
                "it has not the form it must have, or asks for something unknown",
            ),
            Self::OtherOperation => {
                Label("no es la solicitud anunciada", "it is not the request it was announced as")
            }
            Self::UnknownCause => Label("su causal no existe", "its cause does not exist"),
            Self::Generation { said, held } => {
                let text = Label(
                    "trata de la generación {said} y este teléfono tiene la {held}",
                    "it is about generation {said}, and this phone has {held}",
                );
                let text = text.text(language).replace("{said}", &said.to_string());
                return text.replace("{held}", &held.to_string());
            }
            Self::Misleading => Label(
                "su texto tiene caracteres que engañan a la vista",
                "its text has characters that mislead the eye",
            ),
        };
        label.text(language).to_owned()
    }
}
