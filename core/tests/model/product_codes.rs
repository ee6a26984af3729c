//! The product's side, third part: the way of a seed from the enrollment to the codes.

use semilla_core::enrollment::{Enrollment, EnrollmentState};
use semilla_core::operations::{Action, BlockCause};
use semilla_core::otp::{Code as OneTimeCode, Parameters, Step as OtpStep};
use semilla_core::policy::Profile;
use semilla_core::protocol::bytes::Digest;
use semilla_core::protocol::messages::{self, Enroll};
use semilla_core::seal::{Purpose, Sealed};
use semilla_core::secret::Seed;
use semilla_core::token::Custody;
use semilla_core::verifier::{Locked, Reach, Verdict};

use crate::codes::KeptSeed;
use crate::faults::Fault;
use crate::product::{ISSUER, Product, Refusal, Stored, Went};
use crate::words::*;

impl Product {
    /// Makes the seed of an open enrollment and seals it to the phone that asks.
    pub fn deliver(&mut self, place: usize, to: PhoneRef) -> Went {
        self.stored(place)?;
        let (id, phone) = (self.open_enrollment(place), self.phone(to)?);
        let (text, kem) = self.say_enroll(phone, id.as_ref().ok().copied());
        let (id, device) = (id?, self.phones[phone].device.clone());
        let enrollment = self.enrollments[id].clone();
        self.phones[phone].require_bound()?;
        let enroll: Enroll = messages::verify(&text, &device.key, &device.id.to_string(), ISSUER)?;
        let for_it = enrollment.profile != Profile::AuthenticatorApp
            && enrollment.holder == device.user
            && enrollment.is_for(device.id);
        if !for_it {
            return Err("not for this phone".into());
        }
        self.count(phone, enroll.ctr)?;
        let seed = self.new_seed(&enrollment);
        let delivery = self.delivery(&enrollment, &seed, &enroll.seed_kem, device.id, &text);
        let kept = Self::open_delivery(&delivery, &kem, device.id, &text);
        self.seeds.insert((place, enrollment.generation), kept);
        self.enrollments[id].state = EnrollmentState::Delivered {
            device: device.id,
            seed: self.seal(&seed, &enrollment),
            request_sha256: Digest::of(text.as_bytes()).to_string(),
            delivery,
        };
        Ok(Outcome::Done)
    }

    /// The seed is shown to the holder, for an authenticator app.
    pub fn show(&mut self, place: usize) -> Went {
        let id = self.open_enrollment(place)?;
        let enrollment = &self.enrollments[id];
        if enrollment.profile != Profile::AuthenticatorApp {
            return Err("seeds go to phones".into());
        }
        let seed = self.new_seed(enrollment);
        let bytes = seed.expose().to_vec();
        let kept = KeptSeed { bytes, authenticator_app: true };
        self.seeds.insert((place, enrollment.generation), kept);
        self.enrollments[id].state =
            EnrollmentState::Shown { seed: self.seal(&seed, &self.enrollments[id]) };
        Ok(Outcome::Done)
    }

    /// The enrollment of a token that no seed was made for yet.
    pub fn open_enrollment(&self, place: usize) -> Result<usize, Refusal> {
        let id = self.stored(place)?.token.enrollment.ok_or("no enrollment")?;
        let id = self.enrollment(id);
        let enrollment = &self.enrollments[id];
        if enrollment.state != EnrollmentState::Open {
            return Err("delivered before".into());
        }
        if self.now >= enrollment.expires {
            return Err("enrollment is over".into());
        }
        Ok(id)
    }

    pub fn new_seed(&self, enrollment: &Enrollment) -> Seed {
        Seed::generate(enrollment.parameters().algorithm.key_length(), &self.random)
    }

    pub fn seal(&self, seed: &Seed, enrollment: &Enrollment) -> Sealed {
        let Enrollment { company, token, generation, .. } = *enrollment;
        self.keyring.seal_seed(seed, &Purpose::Seed { company, token, generation }, &self.random)
    }

    pub fn prove(&mut self, place: usize, on: Option<PhoneRef>, code: &Code) -> Went {
        let id = self.stored(place)?.token.enrollment.ok_or("no enrollment")?;
        let enrollment = self.enrollments[self.enrollment(id)].clone();
        if self.now >= enrollment.expires {
            return Err("enrollment is over".into());
        }
        let (sealed, custody) = match (&enrollment.state, on) {
            (EnrollmentState::Delivered { device, seed, .. }, Some(on)) => {
                let phone = &self.phones[self.phone(on)?];
                if phone.device.id != *device {
                    return Err("delivered to another phone".into());
                }
                phone.require_bound()?;
                (seed.clone(), Custody::Phone(*device))
            }
            (EnrollmentState::Shown { seed }, None) => (seed.clone(), Custody::AuthenticatorApp),
            _ => return Err("nothing to prove there".into()),
        };
        let held = (enrollment.generation, sealed, enrollment.parameters());
        let outcome = self.try_code(place, &held, code)?;
        if let Outcome::Accepted(step) = outcome {
            let changed = self.tokens[place].token.clone().prove(id, custody, self.now)?;
            let at = self.enrollment(id);
            self.enrollments[at].state = EnrollmentState::Confirmed {
                at: self.now,
                step: OtpStep(step),
                device: custody.device(),
            };
            let rotates = changed.operation == Some(Action::Rotate);
            let old = self.tokens[place].seed.clone();
            self.apply(place, changed, None);
            let stored = &mut self.tokens[place];
            stored.open = true;
            let keeps_old = rotates && self.fault == Some(Fault::OldSeedOutlivesTheRotation);
            stored.seed = if keeps_old { old } else { Some(held) };
        }
        Ok(outcome)
    }

    pub fn check(&mut self, place: usize, code: &Code) -> Went {
        let stored = self.stored(place)?;
        match stored.seed.clone().filter(|_| stored.open) {
            Some(held) => self.try_code(place, &held, code),
            None => Ok(Outcome::Closed),
        }
    }

    /// The one way to try a code: claimed, then checked, then counted.
    fn try_code(&mut self, place: usize, held: &(u32, Sealed, Parameters), code: &Code) -> Went {
        let Code::Text(text) = code else { return Err("no such seed".into()) };
        let code = OneTimeCode::parse(text).map_err(|_| "not a code")?;
        // What is no code of this seed can be right for nothing, and is not counted.
        if code.digits() != held.2.digits {
            return Err("a code of another length".into());
        }
        let Stored { token, counters, .. } = &self.tokens[place];
        let mut counters = *counters;
        if self.fault == Some(Fault::UsedStepIsAcceptedAgain) {
            counters.last_step = None;
        }
        let claimed = match counters.claim(&self.policy.lockout, self.now) {
            Ok(claimed) => claimed,
            Err(Locked::Waiting(_)) => return Ok(Outcome::Waiting),
            Err(Locked::ForGood) => return Ok(Outcome::Locked),
        };
        let (generation, sealed, parameters) = held;
        let reach = Reach { look_ahead: self.policy.look_ahead };
        let purpose =
            Purpose::Seed { company: token.company, token: token.id, generation: *generation };
        let seed = self.keyring.open_seed(sealed, &purpose).map_err(|_| "does not open")?;
        let (verdict, after) = claimed.check(&seed, &(*parameters).into(), reach, &code, self.now);
        if self.fault != Some(Fault::FailuresAreNotCounted) || after.failures == 0 {
            self.tokens[place].counters = after;
        }
        if after.failures >= self.policy.lockout.block_at {
            let token = self.tokens[place].token.clone();
            if let Ok(changed) = token.block(BlockCause::TooManyFailures, self.now) {
                self.apply(place, changed, None);
            }
        }
        Ok(match verdict {
            Verdict::Accepted(step) => Outcome::Accepted(step.0),
            Verdict::Used => Outcome::Used,
            Verdict::Wrong => Outcome::Wrong,
        })
    }

    pub fn give_up(&mut self, place: usize) -> Went {
        let id = self.stored(place)?.token.enrollment.ok_or("no enrollment")?;
        self.close_enrollment(self.enrollment(id), EnrollmentState::Cancelled);
        Ok(Outcome::Done)
    }

    /// Ends an enrollment from outside of its token, and tells the token.
    pub fn close_enrollment(&mut self, id: usize, end: EnrollmentState) {
        self.enrollments[id].state = end;
        let place = self.place_of(self.enrollments[id].token);
        let token = self.tokens[place].token.clone();
        if let Ok(changed) = token.close_enrollment(self.enrollments[id].id) {
            self.apply(place, changed, None);
        }
    }
}
