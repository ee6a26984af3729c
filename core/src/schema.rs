//! What the values of this crate look like in JSON (JSON Schema 2020-12): the forms that
//! [`serde`] writes and reads by hand, described beside each other and each with an example. Structs
//! and enums describe themselves where they are defined. A description is for readers and their
//! tools; what is accepted is decided where a value is parsed.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::audit::Hash;
use crate::id::{
    ClientId, CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId, WebhookId,
};
use crate::otp::{Code, Digits, Period};
use crate::person::Login;
use crate::protocol::activation::ActivationName;
use crate::protocol::bytes::{Mac, Nonce};
use crate::protocol::jwk::{JwkSet, PublicKey};
use crate::secret::SecretText;
use crate::text::Name;
use crate::time::Timestamp;
use crate::token::Serial;

macro_rules! described {
    ($($type:ident = { $($schema:tt)* };)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ $($schema)* })
            }
        }
    )*};
}

macro_rules! described_ids {
    ($($type:ident: $of:literal, $example:literal;)*) => {
        described! {$(
            $type = {
                "description": concat!("The id of ", $of, ": a UUID, in lower case."),
                "type": "string",
                "format": "uuid",
                "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
                "examples": [$example]
            };
        )*}
    };
}

described_ids! {
    CompanyId: "a company", "019ac6a5-1c00-7000-8000-000000000001";
    UserId: "a person", "019ac6a5-1c00-7000-8000-000000000002";
    TokenId: "a token", "019ac6a5-1c00-7000-8000-000000000003";
    DeviceId: "a phone", "019ac6a5-1c00-7000-8000-000000000004";
    EnrollmentId: "an enrollment", "019ac6a5-1c00-7000-8000-000000000005";
    OperationId: "an operation", "019ac6a5-1c00-7000-8000-000000000006";
    ClientId: "a program, its `client_id`", "019ac6a5-1c00-7000-8000-000000000007";
    WebhookId: "a webhook", "019ac6a5-1c00-7000-8000-000000000008";
}

described! {
    Name = {
        "description": "A name, as people read it: 1 to 100 characters, none of them invisible.",
        "type": "string", "minLength": 1, "maxLength": 1600,
        "examples": ["Laura Valencia"]
    };
    Login = {
        "description": "A login, unique within its company.",
        "type": "string", "pattern": "^[a-z0-9][a-z0-9._@-]{2,63}$",
        "examples": ["laura.valencia"]
    };
    Serial = {
        "description": "A serial number: three letters and seven digits, or what is printed on a token of others.",
        "type": "string", "pattern": "^[A-Z0-9_.-]{4,32}$",
        "examples": ["FEF4900032"]
    };
    Timestamp = {
        "description": "A moment (RFC 3339), in UTC and milliseconds.",
        "type": "string", "format": "date-time",
        "examples": ["2026-11-24T16:00:00.000Z"]
    };
    SecretText = {
        "description": "A secret text.",
        "type": "string",
        "examples": ["12345678"]
    };
    Code = {
        "description": "A code: 6 to 8 digits.",
        "type": "string", "pattern": "^[0-9]{6,8}$",
        "examples": ["12345678"]
    };
    Digits = {
        "description": "How many digits a code has.",
        "type": "integer", "minimum": 6, "maximum": 8,
        "examples": [8]
    };
    Period = {
        "description": "For how many seconds a code holds.",
        "type": "integer", "enum": [30, 40, 60],
        "examples": [30]
    };
    ActivationName = {
        "description": "The first four characters of an activation code (Crockford base32).",
        "type": "string", "pattern": "^[0-9A-HJKMNP-TV-Z]{4}$",
        "examples": ["7ZQ4"]
    };
    Nonce = {
        "description": "16 bytes, base64url without padding.",
        "type": "string", "pattern": "^[A-Za-z0-9_-]{22}$",
        "examples": ["AAECAwQFBgcICQoLDA0ODw"]
    };
    Mac = {
        "description": "An HMAC-SHA-256, base64url without padding.",
        "type": "string", "pattern": "^[A-Za-z0-9_-]{43}$",
        "examples": ["T8_6IL9jLQEklNJOHBx6HD7ovGN7xxtS_ohbkIyqBn8"]
    };
    Hash = {
        "description": "A SHA-256, as audit chains write it.",
        "type": "string", "pattern": "^[A-Za-z0-9_-]{43}$",
        "examples": ["T8_6IL9jLQEklNJOHBx6HD7ovGN7xxtS_ohbkIyqBn8"]
    };
    PublicKey = {
        "description": "A P-256 key (RFC 7518 section 6.2).",
        "type": "object",
        "properties": {
            "kty": { "const": "EC" },
            "crv": { "const": "P-256" },
            "x": { "type": "string" },
            "y": { "type": "string" }
        },
        "required": ["kty", "crv", "x", "y"],
        "additionalProperties": false,
        "examples": [{
            "kty": "EC", "crv": "P-256",
            "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
            "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA"
        }]
    };
    JwkSet = {
        "description": "A JSON Web Key Set (RFC 7517), as the exact text that was vouched for.",
        "type": "string",
        "examples": ["{\"keys\":[]}"]
    };
}
