//! A token and the rules of its life. Each operation consumes the token as it was and returns the
//! token as it is, with what has to happen beside it; whatever the table of operations does not
//! allow is refused. A release, an unblocking and a rotation demand an [`ApprovalVerified`], which
//! only a checked signature makes.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::approval::{Approvable, ApprovalVerified};
use crate::id::{CompanyId, DeviceId, EnrollmentId, OperationId, TokenId, UserId};
use crate::operations::{Action, BlockCause, Cause, ReleaseCause, State};
use crate::time::Timestamp;

/// A serial number. Ours are three letters and seven digits, `FEF4900032`; a token that was made
/// elsewhere keeps the one that is printed on it: 4 to 32 capitals, digits, `-`, `_` and `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(String);

/// The text is no serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a serial number is 4 to 32 of A-Z, 0-9, -, _ and .")]
pub struct NotASerial;

impl Serial {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one that we give: three letters and seven digits.
    pub fn is_ours(&self) -> bool {
        let bytes = self.0.as_bytes();
        bytes.len() == 10
            && bytes[..3].iter().all(u8::is_ascii_uppercase)
            && bytes[3..].iter().all(u8::is_ascii_digit)
    }

    /// The one `count` places further on, where there is one: `FEF4900032` + 1 = `FEF4900033`.
    pub fn plus(&self, count: u32) -> Option<Self> {
        if count == 0 {
            return Some(self.clone());
        }
        let digits = self.0.bytes().rev().take_while(u8::is_ascii_digit).count();
        let (letters, digits) = self.0.split_at(self.0.len() - digits);
        let number = digits.parse::<u128>().ok()?.checked_add(count.into())?;
        let width = digits.len();
        let next = format!("{number:0width$}");
        (next.len() == width).then(|| Self(format!("{letters}{next}")))
    }
}

impl FromStr for Serial {
    type Err = NotASerial;
    fn from_str(text: &str) -> Result<Self, NotASerial> {
        let known =
            |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if (4..=32).contains(&text.len()) && text.bytes().all(known) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotASerial)
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a token is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A seed on a phone.
    Virtual,
    /// A thing in a hand or a drawer, that shows codes of a seed from its factory. Where that seed
    /// was not imported, an inventory entry.
    Physical,
    /// A program of others, whose seed was imported.
    Software,
}

impl Kind {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Virtual => "virtual",
            Self::Physical => "physical",
            Self::Software => "software",
        }
    }
}

/// Where a live generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Custody {
    /// On this phone alone.
    Phone(DeviceId),
    /// In an authenticator app of the holder's, which proves nothing about itself.
    AuthenticatorApp,
    /// In a thing or a program that it came with.
    Imported,
}

impl Custody {
    /// The phone, where it is one of ours.
    pub fn device(self) -> Option<DeviceId> {
        match self {
            Self::Phone(device) => Some(device),
            Self::AuthenticatorApp | Self::Imported => None,
        }
    }
}

/// A generation that is, or was before a block, live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Live {
    /// Its number.
    pub generation: u32,
    /// Where it is.
    pub custody: Custody,
}

/// What a token was before it was blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// Assigned: there was no seed yet.
    Assigned,
    /// Active, and the seed still exists.
    Active(Live),
    /// Whatever it was: the phone is gone, the seed is destroyed, and only a release leads on.
    Destroyed,
}

/// The state of a token, with what is true in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenState {
    /// In the bank's stock. Operator's move.
    Stock,
    /// In the company's pool. Administrator's move.
    Company,
    /// Given to a user. Holder's move: enroll.
    Assigned {
        /// To whom.
        holder: UserId,
    },
    /// Codes are accepted. Nobody's move.
    Active {
        /// Whose.
        holder: UserId,
        /// Which generation, and where it is.
        live: Live,
    },
    /// Codes are refused. Administrator's move.
    Blocked {
        /// Whose.
        holder: UserId,
        /// What it was before.
        before: Before,
        /// Why.
        cause: BlockCause,
    },
    /// Ended. Nobody's move.
    Retired,
}

/// A token, through all its generations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its id, for good.
    pub id: TokenId,
    /// Whose it is: the bank's while in stock or retired from it, else the company's.
    pub company: CompanyId,
    /// What is printed on lists.
    pub serial: Serial,
    /// What it is made of.
    pub kind: Kind,
    /// The number of the last generation an enrollment was opened for; 0 before the first. Every
    /// enrollment takes a new one, proven or not, so that no two seeds ever share a number.
    pub generation: u32,
    /// Whether it came with its seed, and that seed exists here. Every generation of it is then of
    /// that one seed, behind the last code accepted of the generations before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_own_seed: bool,
    /// Where it stands.
    pub state: TokenState,
    /// The enrollment that is open, if any.
    pub enrollment: Option<EnrollmentId>,
    /// The operation that waits for a phone, if any: one at a time (security 65).
    pub pending: Option<OperationId>,
    /// The last operation and its cause.
    pub last: LastChange,
}

/// The last operation on a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LastChange {
    /// What was done.
    pub action: Action,
    /// Why, by its name, where it had a cause.
    pub cause: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// What has to happen beside the change of a token, in the same transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An enrollment opens, for the token's new generation number.
    EnrollmentOpens(EnrollmentId),
    /// An open enrollment ends without having led anywhere.
    EnrollmentCancelled(EnrollmentId),
    /// A pending operation ends without having been executed.
    OperationCancelled(OperationId),
    /// A proven generation goes live.
    SeedLive(Live),
    /// The live generation's codes are refused; its seed stays.
    SeedClosed(u32),
    /// The same generation's codes are accepted again.
    SeedReopened(u32),
    /// The generation's seed is destroyed.
    SeedDestroyed(u32),
    /// The seed that the token came with is destroyed: no generation of it is ever made again.
    OwnSeedDestroyed,
    /// The phone is trusted no more.
    DeviceRevoked(DeviceId),
    /// Wrong codes before this do not count any more: a person approved that the token goes on
    /// (security 15).
    FailuresForgiven,
}

/// A token after an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The token as it is now.
    pub token: Token,
    /// The operation of the table that this was; none where something only began or ended beside
    /// it, which leaves a record of its own.
    pub operation: Option<Action>,
    /// What has to happen with it.
    pub effects: Vec<Effect>,
}

/// Why an operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The table does not allow it from this state.
    #[error("{} is not possible in state {}", action.name(), state.name())]
    State {
        /// The state in the way.
        state: State,
        /// What was asked.
        action: Action,
    },
    /// The cause of the block destroyed the seed: only a release leads on.
    #[error("the seed was destroyed: only a release is possible")]
    SeedGone,
    /// Another operation waits for a phone.
    #[error("another operation waits for a phone")]
    Pending(OperationId),
    /// The approval is for something else, or for this token as it was before.
    #[error("the approval is not for this operation on this token as it is")]
    ProofMismatch,
    /// The enrollment is not the one that is open.
    #[error("this enrollment is not open")]
    EnrollmentClosed,
    /// It is not virtual, and no seed of it is here.
    #[error("no seed of this token is here: it was not imported, or is destroyed")]
    NoSeedHere,
    /// The seed came with the token and cannot be another one.
    #[error(
        "the seed of this token came with it and cannot be renewed: release the token, and assign another"
    )]
    SeedIsFixed,
}

impl Token {
    /// *issue*: a new token in the bank's stock.
    pub fn issue(id: TokenId, serial: Serial, kind: Kind, now: Timestamp) -> Self {
        Self {
            id,
            company: CompanyId::BANK,
            serial,
            kind,
            generation: 0,
            has_own_seed: false,
            state: TokenState::Stock,
            enrollment: None,
            pending: None,
            last: LastChange { action: Action::Issue, cause: None, at: now },
        }
    }

    /// *issue*, of a token that comes with its seed.
    pub fn import(id: TokenId, serial: Serial, kind: Kind, now: Timestamp) -> Self {
        Self { has_own_seed: kind != Kind::Virtual, ..Self::issue(id, serial, kind, now) }
    }

    /// The name of its state.
    pub fn state(&self) -> State {
        match self.state {
            TokenState::Stock => State::Stock,
            TokenState::Company => State::Company,
            TokenState::Assigned { .. } => State::Assigned,
            TokenState::Active { .. } => State::Active,
            TokenState::Blocked { .. } => State::Blocked,
            TokenState::Retired => State::Retired,
        }
    }

    /// Who holds it.
    pub fn holder(&self) -> Option<UserId> {
        match self.state {
            TokenState::Assigned { holder }
            | TokenState::Active { holder, .. }
            | TokenState::Blocked { holder, .. } => Some(holder),
            TokenState::Stock | TokenState::Company | TokenState::Retired => None,
        }
    }

    /// The generation whose seed exists, and where it is: live, or kept under a block.
    pub fn live(&self) -> Option<Live> {
        match self.state {
            TokenState::Active { live, .. }
            | TokenState::Blocked { before: Before::Active(live), .. } => Some(live),
            _ => None,
        }
    }

    /// *allot*: from the stock to a company.
    pub fn allot(mut self, company: CompanyId, now: Timestamp) -> Result<Changed, Refused> {
        self.require(Action::Allot)?;
        self.company = company;
        self.state = TokenState::Company;
        Ok(self.changed(Action::Allot, None, now, vec![]))
    }

    /// *withdraw*: from a company's pool back to the stock.
    pub fn withdraw(mut self, now: Timestamp) -> Result<Changed, Refused> {
        self.require(Action::Withdraw)?;
        self.company = CompanyId::BANK;
        self.state = TokenState::Stock;
        Ok(self.changed(Action::Withdraw, None, now, vec![]))
    }

    /// *retire*: the end.
    pub fn retire(mut self, now: Timestamp) -> Result<Changed, Refused> {
        self.require(Action::Retire)?;
        self.state = TokenState::Retired;
        let effects = self.destroy_own_seed();
        Ok(self.changed(Action::Retire, None, now, effects))
    }

    /// *assign*: to a user, who enrolls it next.
    pub fn assign(
        mut self,
        holder: UserId,
        enrollment: EnrollmentId,
        now: Timestamp,
    ) -> Result<Changed, Refused> {
        self.require(Action::Assign)?;
        self.require_seed_to_come()?;
        self.state = TokenState::Assigned { holder };
        let effects = self.open_enrollment(enrollment);
        Ok(self.changed(Action::Assign, None, now, effects))
    }

    /// Opens another enrollment for the same holder; the earlier one is dead.
    pub fn open_again(mut self, enrollment: EnrollmentId) -> Result<Changed, Refused> {
        // The token waits for its enrollment in these two cases only.
        let waits = matches!(self.state, TokenState::Assigned { .. })
            || (matches!(self.state, TokenState::Active { .. }) && self.enrollment.is_some());
        if !waits {
            return Err(Refused::State { state: self.state(), action: Action::Enroll });
        }
        let effects = self.open_enrollment(enrollment);
        Ok(Changed { token: self, operation: None, effects })
    }

    /// *enroll*, and the end of a *rotate*: the open enrollment's generation was proven by a code.
    /// It goes live, and an older one dies.
    pub fn prove(
        mut self,
        enrollment: EnrollmentId,
        custody: Custody,
        now: Timestamp,
    ) -> Result<Changed, Refused> {
        if self.enrollment != Some(enrollment) {
            return Err(Refused::EnrollmentClosed);
        }
        let live = Live { generation: self.generation, custody };
        let (holder, action, old) = match self.state {
            TokenState::Assigned { holder } => (holder, Action::Enroll, None),
            TokenState::Active { holder, live } => (holder, Action::Rotate, Some(live.generation)),
            _ => return Err(Refused::State { state: self.state(), action: Action::Enroll }),
        };
        self.enrollment = None;
        self.state = TokenState::Active { holder, live };
        let mut effects = self.cancel_pending();
        effects.extend(old.map(Effect::SeedDestroyed));
        effects.push(Effect::SeedLive(live));
        Ok(self.changed(action, None, now, effects))
    }

    /// The open enrollment's time is over, or its holder gave up. What was asked of the token as it
    /// was before could only fail from now on, and ends with it.
    pub fn close_enrollment(mut self, enrollment: EnrollmentId) -> Result<Changed, Refused> {
        if self.enrollment != Some(enrollment) {
            return Err(Refused::EnrollmentClosed);
        }
        let effects = self.cancel_open();
        Ok(Changed { token: self, operation: None, effects })
    }

    /// *block*: at once, without a phone.
    pub fn block(mut self, cause: BlockCause, now: Timestamp) -> Result<Changed, Refused> {
        self.require(Action::Block)?;
        let mut effects = self.cancel_open();
        if cause.destroys_seed() {
            effects.extend(self.destroy_own_seed());
        }
        let (holder, before) = match self.state {
            TokenState::Active { holder, live } if cause.destroys_seed() => {
                effects.push(Effect::SeedDestroyed(live.generation));
                effects.extend(live.custody.device().map(Effect::DeviceRevoked));
                (holder, Before::Destroyed)
            }
            TokenState::Active { holder, live } => {
                effects.push(Effect::SeedClosed(live.generation));
                (holder, Before::Active(live))
            }
            TokenState::Assigned { holder } if cause.destroys_seed() => (holder, Before::Destroyed),
            TokenState::Assigned { holder } => (holder, Before::Assigned),
            _ => return Err(Refused::State { state: self.state(), action: Action::Block }),
        };
        self.state = TokenState::Blocked { holder, before, cause };
        Ok(self.changed(Action::Block, Some(Cause::Block(cause)), now, effects))
    }

    /// The phone that a blocked token's seed is kept for is gone as well: from now on only a
    /// release leads on.
    pub fn lose_seed(mut self, cause: BlockCause, now: Timestamp) -> Result<Changed, Refused> {
        let TokenState::Blocked { holder, before, .. } = self.state else {
            return Err(Refused::State { state: self.state(), action: Action::Block });
        };
        let mut effects = self.cancel_open();
        if let Before::Active(live) = before {
            effects.push(Effect::SeedDestroyed(live.generation));
        }
        self.state = TokenState::Blocked { holder, before: Before::Destroyed, cause };
        Ok(self.changed(Action::Block, Some(Cause::Block(cause)), now, effects))
    }

    /// Whether `action` can be asked of the token as it is, so that a phone is to be asked.
    pub fn ask(mut self, action: Approvable, operation: OperationId) -> Result<Changed, Refused> {
        self.require(action.on_token().ok_or(Refused::ProofMismatch)?)?;
        if matches!(action, Approvable::Rotate(_)) {
            self.require_virtual()?;
        }
        if let Some(pending) = self.pending {
            return Err(Refused::Pending(pending));
        }
        if action == Approvable::Unblock {
            self.require_seed_or_none_yet()?;
        }
        self.pending = Some(operation);
        Ok(Changed { token: self, operation: None, effects: vec![] })
    }

    /// The pending operation ended without being executed.
    pub fn settle(mut self, operation: OperationId) -> Self {
        if self.pending == Some(operation) {
            self.pending = None;
        }
        self
    }

    /// *unblock*: back to what it was. A token that was only assigned gets a new enrollment, since
    /// the block ended the one it had.
    pub fn unblock(
        mut self,
        proof: ApprovalVerified,
        version: i64,
        enrollment: EnrollmentId,
        now: Timestamp,
    ) -> Result<Changed, Refused> {
        self.require(Action::Unblock)?;
        self.accept(&proof, Approvable::Unblock, version)?;
        self.require_seed_or_none_yet()?;
        let mut effects = vec![Effect::FailuresForgiven];
        match self.state {
            TokenState::Blocked { holder, before: Before::Active(live), .. } => {
                self.state = TokenState::Active { holder, live };
                effects.push(Effect::SeedReopened(live.generation));
            }
            TokenState::Blocked { holder, before: Before::Assigned, .. } => {
                self.state = TokenState::Assigned { holder };
                effects.extend(self.open_enrollment(enrollment));
            }
            _ => return Err(Refused::State { state: self.state(), action: Action::Unblock }),
        }
        Ok(self.changed(Action::Unblock, None, now, effects))
    }

    /// *release*: the generation dies, the token returns to the company's pool. The seed in a thing
    /// dies with nothing but the thing, so it is kept for whoever holds the thing next; a program
    /// stays where it is, with the former holder, so its seed dies for good.
    pub fn release(
        mut self,
        proof: ApprovalVerified,
        version: i64,
        cause: ReleaseCause,
        now: Timestamp,
    ) -> Result<Changed, Refused> {
        self.require(Action::Release)?;
        self.accept(&proof, Approvable::Release(cause), version)?;
        let mut effects = self.cancel_open();
        effects.extend(self.live().map(|live| Effect::SeedDestroyed(live.generation)));
        effects.push(Effect::FailuresForgiven);
        if self.kind == Kind::Software {
            effects.extend(self.destroy_own_seed());
        }
        self.state = TokenState::Company;
        Ok(self.changed(Action::Release, Some(Cause::Release(cause)), now, effects))
    }

    /// *rotate*, its beginning: an enrollment opens for the next generation. The live one stays
    /// live until [`Token::prove`].
    pub fn rotate(
        mut self,
        proof: ApprovalVerified,
        version: i64,
        enrollment: EnrollmentId,
        now: Timestamp,
    ) -> Result<Changed, Refused> {
        self.require(Action::Rotate)?;
        self.require_virtual()?;
        let Approvable::Rotate(cause) = proof.action() else { return Err(Refused::ProofMismatch) };
        self.accept(&proof, proof.action(), version)?;
        let effects = self.open_enrollment(enrollment);
        Ok(self.changed(Action::Rotate, Some(Cause::Rotate(cause)), now, effects))
    }

    fn require(&self, action: Action) -> Result<(), Refused> {
        let state = self.state();
        if action.operation().from.contains(&state) {
            Ok(())
        } else {
            Err(Refused::State { state, action })
        }
    }

    fn require_virtual(&self) -> Result<(), Refused> {
        match self.kind {
            Kind::Virtual => Ok(()),
            Kind::Physical | Kind::Software => Err(Refused::SeedIsFixed),
        }
    }

    fn require_seed_to_come(&self) -> Result<(), Refused> {
        match self.kind {
            Kind::Physical | Kind::Software if !self.has_own_seed => Err(Refused::NoSeedHere),
            _ => Ok(()),
        }
    }

    fn destroy_own_seed(&mut self) -> Vec<Effect> {
        let had = std::mem::take(&mut self.has_own_seed);
        had.then_some(Effect::OwnSeedDestroyed).into_iter().collect()
    }

    fn require_seed_or_none_yet(&self) -> Result<(), Refused> {
        match self.state {
            TokenState::Blocked { before: Before::Destroyed, .. } => Err(Refused::SeedGone),
            _ => Ok(()),
        }
    }

    /// The proof must be for this very operation on this token at this version of it, so that
    /// whatever happened since the request was shown makes it worthless (security 56).
    fn accept(
        &mut self,
        proof: &ApprovalVerified,
        action: Approvable,
        version: i64,
    ) -> Result<(), Refused> {
        // A rotation that the holder starts on the phone has no pending operation before it.
        let expected = if proof.is_immediate() { None } else { Some(proof.operation()) };
        if self.pending != expected || !proof.covers(action, self.id, version) {
            return Err(Refused::ProofMismatch);
        }
        self.pending = None;
        Ok(())
    }

    fn open_enrollment(&mut self, enrollment: EnrollmentId) -> Vec<Effect> {
        let earlier = self.enrollment.replace(enrollment);
        self.generation += 1;
        let mut effects: Vec<_> = earlier.map(Effect::EnrollmentCancelled).into_iter().collect();
        effects.extend(self.cancel_pending());
        effects.push(Effect::EnrollmentOpens(enrollment));
        effects
    }

    fn cancel_pending(&mut self) -> Vec<Effect> {
        self.pending.take().map(Effect::OperationCancelled).into_iter().collect()
    }

    fn cancel_open(&mut self) -> Vec<Effect> {
        let enrollment = self.enrollment.take().map(Effect::EnrollmentCancelled);
        enrollment.into_iter().chain(self.cancel_pending()).collect()
    }

    fn changed(
        mut self,
        action: Action,
        cause: Option<Cause>,
        now: Timestamp,
        effects: Vec<Effect>,
    ) -> Changed {
        let cause = cause.map(|cause| cause.name().to_owned());
        self.last = LastChange { action, cause, at: now };
        Changed { token: self, operation: Some(action), effects }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::testing::Seeded;

    #[test]
    fn a_serial_is_three_letters_and_seven_digits() {
        let serial: Serial = "FEF4900032".parse().expect("a serial");
        assert_eq!(serial.plus(1).map(|next| next.to_string()).as_deref(), Some("FEF4900033"));
        assert_eq!("ABC9999999".parse::<Serial>().expect("a serial").plus(1), None);
        assert!(serial.is_ours());
        for theirs in ["FEF490003", "FEF49000321", "FE44900032", "306EUO4-00960", "987654321"] {
            assert!(!theirs.parse::<Serial>().expect("a serial").is_ours(), "{theirs}");
        }
        for other in
            ["", "fef4900032", "ÑEF490003", "A B1", "123", "A/12345", "1\n23", &"A".repeat(33)]
        {
            assert_eq!(other.parse::<Serial>(), Err(NotASerial), "{other}");
        }
        let plus = |text: &str, count| {
            let serial: Serial = text.parse().expect("a serial");
            serial.plus(count).map(|next| next.to_string())
        };
        assert_eq!(plus("306EUO4-00999", 1).as_deref(), Some("306EUO4-01000"));
        assert_eq!(plus("9999", 1), None);
        assert_eq!(plus("ABCD", 1), None);
        assert_eq!(plus("ABCD", 0).as_deref(), Some("ABCD"));
    }

    fn physical(kind: Kind) -> Token {
        let (entropy, now) = (Seeded::new(7), Timestamp::from_seconds(0));
        let company = CompanyId::new(now, &entropy);
        let serial = "987654321".parse().expect("a serial");
        let token = Token::import(TokenId::new(now, &entropy), serial, kind, now);
        token.allot(company, now).expect("allotted").token
    }

    fn active(kind: Kind) -> Token {
        let (entropy, now) = (Seeded::new(8), Timestamp::from_seconds(0));
        let (user, enrollment) = (UserId::new(now, &entropy), EnrollmentId::new(now, &entropy));
        let assigned = physical(kind).assign(user, enrollment, now).expect("assigned").token;
        assigned.prove(enrollment, Custody::Imported, now).expect("proven").token
    }

    #[test]
    fn a_seed_that_came_with_a_token_dies_by_loss_and_by_retirement() {
        let now = Timestamp::from_seconds(0);
        for kind in [Kind::Physical, Kind::Software] {
            for (cause, dies) in [
                (BlockCause::DeviceLostOrStolen, true),
                (BlockCause::DeviceChange, true),
                (BlockCause::UserInactive, false),
                (BlockCause::TooManyFailures, false),
            ] {
                let blocked = active(kind).block(cause, now).expect("blocked");
                assert_eq!(blocked.effects.contains(&Effect::OwnSeedDestroyed), dies, "{cause:?}");
                assert_eq!(blocked.token.has_own_seed, !dies);
            }
            let retired = physical(kind).retire(now).expect("retired");
            assert_eq!(retired.effects, [Effect::OwnSeedDestroyed]);
        }
    }

    #[test]
    fn without_a_seed_here_nobody_is_given_a_physical_token() {
        let (entropy, now) = (Seeded::new(9), Timestamp::from_seconds(0));
        let (user, enrollment) = (UserId::new(now, &entropy), EnrollmentId::new(now, &entropy));
        let inventory = Token { has_own_seed: false, ..physical(Kind::Physical) };
        assert_eq!(inventory.assign(user, enrollment, now).err(), Some(Refused::NoSeedHere));
        let rotate = Approvable::Rotate(crate::operations::RotateCause::Scheduled);
        let asked = active(Kind::Physical).ask(rotate, OperationId::new(now, &entropy));
        assert_eq!(asked.err(), Some(Refused::SeedIsFixed));
    }
}
