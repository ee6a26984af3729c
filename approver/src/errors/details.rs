//! The explanations of what people typed, of what befell the store, and of why a message was
//! refused. Texts of four: what happened and what to do next, in Spanish and in English.

use semilla_core::language::{Label, Language};
use semilla_core::protocol::MessageError;

use super::{Input, Refusal, StoreFault};

pub(super) fn input_text(input: Input) -> [&'static str; 4] {
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
        Input::NotConfirmed => [
            "No se hizo nada.",
            "Responda «sí» o use --yes.",
            "Nothing was done.",
            "Answer yes or use --yes.",
        ],
        Input::Authority => [
            "Ese archivo no es un certificado de una autoridad, en PEM.",
            "Pida al banco el archivo de su autoridad (--ca), o no nombre ninguno.",
            "That file is no certificate of an authority, in PEM.",
            "Ask the bank for its authority's file (--ca), or name none.",
        ],
        Input::File => [
            "El archivo indicado no se pudo leer.",
            "Revise la ruta y los permisos.",
            "The named file cannot be read.",
            "Check its path and permissions.",
        ],
    }
}

pub(super) fn store_text(fault: &StoreFault) -> [&'static str; 4] {
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
        };
        label.text(language).to_owned()
    }
}
