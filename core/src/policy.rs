//! What a company may choose, within what the bank allows. A policy is checked when it is set, so
//! that nothing later meets one that nobody could satisfy.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::otp::{Algorithm, Digits, Parameters, Period};
use crate::problem::FieldError;
use crate::verifier::Lockout;

/// Whose phone authorizes a release and an unblocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Authorizer {
    /// The asking administrator's own phone, as on the bank's sheet.
    OwnPhone,
    /// The phone of another administrator: four eyes.
    AnotherAdministrator,
}

/// Where the company's seeds live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Profile {
    /// In the AppMóvil: SHA-256 and 32 bytes, sealed to one phone.
    AppMovil {
        /// 6 to 8.
        digits: Digits,
        /// 30, 40 or 60 seconds.
        period: Period,
    },
    /// In an authenticator app of the holder's choice: SHA-1, 20 bytes, 6 digits, 30 s, shown once
    /// as a QR code to the holder alone.
    AuthenticatorApp,
}

impl Profile {
    /// How codes are made.
    pub fn parameters(self) -> Parameters {
        match self {
            Self::AppMovil { digits, period } => {
                Parameters { algorithm: Algorithm::Sha256, digits, period }
            }
            Self::AuthenticatorApp => Parameters::AUTHENTICATOR_APP,
        }
    }
}

/// A company's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Whose phone authorizes a release and an unblocking.
    pub authorizer: Authorizer,
    /// How long a phone may take to answer: 60 to 600 s (security 57).
    #[schemars(range(min = 60, max = 600), extend("examples" = [300]))]
    pub approval_seconds: u32,
    /// How long an enrollment stays open: 1 to 168 hours.
    #[schemars(range(min = 1, max = 168), extend("examples" = [24]))]
    pub enrollment_hours: u32,
    /// What wrong codes lead to.
    pub lockout: Lockout,
    /// Where seeds live.
    pub profile: Profile,
    /// How many codes a token with a counter may have shown that nobody sent: 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub look_ahead: u32,
}

impl Policy {
    /// What applies until a company chooses otherwise.
    pub const DEFAULT: Self = Self {
        authorizer: Authorizer::OwnPhone,
        approval_seconds: 300,
        enrollment_hours: 24,
        lockout: Lockout::DEFAULT,
        profile: Profile::AppMovil {
            digits: Parameters::APP_MOVIL.digits,
            period: Parameters::APP_MOVIL.period,
        },
        look_ahead: 10,
    };

    /// How long a phone may take to answer.
    pub fn approval(&self) -> Duration {
        Duration::from_secs(u64::from(self.approval_seconds))
    }

    /// How long an enrollment stays open.
    pub fn enrollment(&self) -> Duration {
        Duration::from_secs(u64::from(self.enrollment_hours) * 3600)
    }

    /// Everything in it that is outside of what the bank allows. `administrators_with_phone` is
    /// how many active administrators have a bound phone: a policy nobody could satisfy is refused.
    pub fn violations(&self, administrators_with_phone: usize) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut require = |holds: bool, pointer: &str, detail: &str| {
            if !holds {
                errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
            }
        };
        require(
            (60..=600).contains(&self.approval_seconds),
            "#/approval_seconds",
            "must be 60 to 600",
        );
        require(
            (1..=168).contains(&self.enrollment_hours),
            "#/enrollment_hours",
            "must be 1 to 168",
        );
        let lockout = &self.lockout;
        require((1..=5).contains(&lockout.wait_from), "#/lockout/wait_from", "must be 1 to 5");
        require(
            (1..=3600).contains(&lockout.wait_seconds),
            "#/lockout/wait_seconds",
            "must be 1 to 3600",
        );
        require(
            (lockout.wait_from..=100).contains(&lockout.block_at),
            "#/lockout/block_at",
            "must be from wait_from to 100",
        );
        require((1..=100).contains(&self.look_ahead), "#/look_ahead", "must be 1 to 100");
        if let Profile::AppMovil { period, .. } = self.profile {
            require(
                [30, 40, 60].contains(&period.seconds()),
                "#/profile/app_movil/period",
                "must be 30, 40 or 60",
            );
        }
        if self.authorizer == Authorizer::AnotherAdministrator {
            require(
                administrators_with_phone >= 2,
                "#/authorizer",
                "four eyes need two active administrators, each with a bound phone",
            );
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_holds_and_four_eyes_need_two_phones() {
        assert_eq!(Policy::DEFAULT.violations(0), []);
        let four_eyes = Policy { authorizer: Authorizer::AnotherAdministrator, ..Policy::DEFAULT };
        assert_eq!(four_eyes.violations(1)[0].pointer, "#/authorizer");
        assert_eq!(four_eyes.violations(2), []);
        let slack = Policy {
            approval_seconds: 601,
            lockout: Lockout { wait_from: 6, wait_seconds: 0, block_at: 101 },
            ..Policy::DEFAULT
        };
        assert_eq!(slack.violations(1).len(), 4);
    }
}
