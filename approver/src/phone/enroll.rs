//! Enrolling a token: a fresh key, the seed sealed to it by the server, and a code of the new
//! generation as proof. What was sent and what came is stored before the next step, so that an
//! enrollment goes on after any interruption, with the same request and the same seed.

use semilla_core::id::EnrollmentId;
use semilla_core::otp::{Algorithm, Digits, Parameters, Period};
use semilla_core::otpauth;
use semilla_core::problem::ProblemType;
use semilla_core::protocol::messages::{self, SeedDelivery};
use semilla_core::protocol::seed_delivery::{SeedContext, SeedKem, SeedPackage};
use semilla_core::protocol::wire::{Confirm, Confirmed, OpenEnrollment, OpenEnrollments, Signed};
use semilla_core::text::Name;
use serde::Serialize;

use super::connection::Call;
use super::sync::require_serial;
use super::{Draft, Phone};
use crate::contents::{Account, LiveSeed, Pending, Token};
use crate::errors::{Error, Refusal};
use crate::review::key_of;

const ENROLLMENTS: &str = "/device/v1/enrollments";

/// A token that gives codes from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Enrolled {
    /// Its serial number.
    pub serial: String,
    /// The company.
    pub company: String,
    /// The generation that is live now.
    pub generation: u32,
}

impl Phone {
    /// What waits to be enrolled on this phone, the oldest first.
    pub async fn enrollments(&self) -> Result<Vec<OpenEnrollment>, Error> {
        let OpenEnrollments { enrollments } = self.call(Call::get(ENROLLMENTS)).await?.json()?;
        enrollments.iter().try_for_each(|open| require_serial(&open.serial))?;
        Ok(enrollments)
    }

    /// Enrolls what waits: an enrollment that was interrupted, or else the oldest one.
    /// [`Error::NothingToEnroll`] where nothing does.
    pub async fn enroll_next(&self) -> Result<Enrolled, Error> {
        let interrupted =
            self.read(|account| Ok(account.pending.first().map(|pending| pending.enrollment)))?;
        if let Some(enrollment) = interrupted {
            match self.enroll(enrollment).await {
                // It is over; perhaps another one waits.
                Err(Error::Expired | Error::NothingToEnroll) => {}
                other => return other,
            }
        }
        let open = self.enrollments().await?;
        let first = open.first().ok_or(Error::NothingToEnroll)?;
        self.enroll(first.enrollment).await
    }

    /// Enrolls one token, from where it stopped.
    pub async fn enroll(&self, enrollment: EnrollmentId) -> Result<Enrolled, Error> {
        self.receive_seed(enrollment).await?;
        self.confirm_seed(enrollment).await
    }

    /// The first half of [`Phone::enroll`]: asks for the seed and stores it. Nothing is live yet.
    pub async fn receive_seed(&self, enrollment: EnrollmentId) -> Result<(), Error> {
        let known = self.read(|account| {
            Ok(account
                .pending(enrollment)
                .map(|pending| (pending.seed.is_some(), pending.request.clone())))
        })?;
        let delivery = match known {
            Some((true, _)) => return Ok(()),
            Some((false, request)) => self.fetch_again(enrollment, request).await,
            None => self.ask_for_seed(enrollment).await,
        };
        let delivery = match delivery {
            Err(error) if is_over(&error) => return Err(self.give_up(enrollment, error)?),
            delivery => delivery?,
        };
        self.take_seed(enrollment, &delivery)
    }

    async fn ask_for_seed(&self, enrollment: EnrollmentId) -> Result<String, Error> {
        let open = self.enrollments().await?;
        let open = open.into_iter().find(|open| open.enrollment == enrollment);
        let OpenEnrollment { token, serial, company, generation, expires_at, .. } =
            open.ok_or(Error::NothingToEnroll)?;
        let kem = SeedKem::generate(self.entropy.as_ref());
        let seed_kem = kem.public().clone();
        let keep = |account: &mut Account, text: &str| {
            let request = text.to_owned();
            account.pending.push(Pending {
                enrollment,
                token,
                serial,
                company,
                generation,
                expires_at,
                kem,
                request,
                seed: None,
            });
        };
        let write = |draft: Draft| draft.enroll(enrollment, seed_kem);
        let answer = self.send_signed(&intent(enrollment), ENROLLMENTS, write, keep).await?;
        let Signed { message } = answer.json()?;
        Ok(message)
    }

    /// The same delivery once more; or, where the request never arrived, the same request.
    async fn fetch_again(
        &self,
        enrollment: EnrollmentId,
        request: String,
    ) -> Result<String, Error> {
        let path = format!("{ENROLLMENTS}/{enrollment}");
        let answer = match self.call(Call::get(&path)).await {
            Err(Error::Problem(problem))
                if matches!(problem.kind, ProblemType::NotFound | ProblemType::StateConflict) =>
            {
                let _turn = self.store.turn().await?;
                self.call(Call::post(ENROLLMENTS, &Signed { message: request })).await?
            }
            answer => answer?,
        };
        let Signed { message } = answer.json()?;
        Ok(message)
    }

    /// Checks a delivery against what was asked, opens it and stores the seed (security 37).
    fn take_seed(&self, enrollment: EnrollmentId, delivery: &str) -> Result<(), Error> {
        let iat = self.update(|account| {
            let now = account.server_time(self.now());
            let (device, _) = account.bound()?;
            let key = key_of(delivery, &account.jwks)?;
            let issuer = account.issuer.clone();
            let message: SeedDelivery =
                messages::verify(delivery, key, &issuer, &device.to_string())?;
            messages::check_not_expired(message.exp, now)?;
            let pending = account.pending_mut(enrollment).ok_or(Error::NothingToEnroll)?;
            let asked = (enrollment, pending.token, pending.generation);
            if (message.txn, message.sub, message.generation) != asked {
                return Err(Refusal::Seed.into());
            }
            let context = SeedContext {
                issuer: &issuer,
                device,
                token: pending.token,
                generation: pending.generation,
                enroll_text: &pending.request,
            };
            let package = pending.kem.open(&message.hpke, &context)?;
            pending.seed = Some(live_seed(&package, &pending.serial).ok_or(Refusal::Seed)?);
            account.outgoing.take_if(|outgoing| outgoing.intent == intent(enrollment));
            Ok(message.iat)
        })?;
        self.learn_signed_time(iat)
    }

    /// The second half of [`Phone::enroll`]: a code of the new generation proves it, and from then
    /// on it takes the place of the one before.
    pub async fn confirm_seed(&self, enrollment: EnrollmentId) -> Result<Enrolled, Error> {
        let code = self.update(|account| {
            let skew = account.skew_milliseconds.unwrap_or(0);
            let pending = account.pending_mut(enrollment).ok_or(Error::NothingToEnroll)?;
            let seed = pending.seed.as_mut().ok_or(Error::NothingToEnroll)?;
            super::codes::require_clock(skew, seed.parameters)?;
            let step = seed.parameters.step_at(self.now());
            // The server takes this code for used, and so does the phone.
            seed.used = Some(step);
            Ok(seed.parameters.code(&seed.secret, step))
        })?;
        let path = format!("{ENROLLMENTS}/{enrollment}/confirm");
        match self.call(Call::post(&path, &Confirm { code })).await {
            Ok(answer) => {
                let Confirmed { token, generation } = answer.json()?;
                let asked = self.read(|account| {
                    Ok(account
                        .pending(enrollment)
                        .map(|pending| (pending.token, pending.generation)))
                })?;
                if asked != Some((token, generation)) {
                    return Err(Refusal::Seed.into());
                }
                self.promote(enrollment)
            }
            // It may have been confirmed before, and the answer lost: the list of tokens tells.
            Err(error) if is_over(&error) => {
                let pending = self.read(|account| {
                    Ok(account
                        .pending(enrollment)
                        .map(|pending| (pending.token, pending.generation)))
                })?;
                self.sync().await?;
                let enrolled = self.read(|account| {
                    let live = account
                        .tokens
                        .iter()
                        .find(|live| pending == Some((live.token, live.generation)));
                    Ok(live.map(Enrolled::of))
                })?;
                match enrolled {
                    Some(enrolled) => Ok(enrolled),
                    None => Err(self.give_up(enrollment, error)?),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn promote(&self, enrollment: EnrollmentId) -> Result<Enrolled, Error> {
        self.update(|account| {
            let live = account.promote(enrollment).ok_or(Error::NothingToEnroll)?;
            Ok(Enrolled::of(live))
        })
    }

    /// Forgets an enrollment that leads nowhere any more, and gives the reason back.
    fn give_up(&self, enrollment: EnrollmentId, reason: Error) -> Result<Error, Error> {
        self.update(|account| {
            account.pending.retain(|pending| pending.enrollment != enrollment);
            account.outgoing.take_if(|outgoing| outgoing.intent == intent(enrollment));
            Ok(())
        })?;
        Ok(reason)
    }
}

impl Enrolled {
    fn of(token: &Token) -> Self {
        Self {
            serial: token.serial.clone(),
            company: token.company.to_string(),
            generation: token.generation,
        }
    }
}

fn intent(enrollment: EnrollmentId) -> String {
    format!("enroll {enrollment}")
}

/// Whether the server will never go on with this enrollment.
fn is_over(error: &Error) -> bool {
    match error {
        Error::Expired => true,
        Error::Problem(problem) => matches!(
            problem.kind,
            ProblemType::NotFound | ProblemType::StateConflict | ProblemType::Forbidden
        ),
        _ => false,
    }
}

/// What a package says, where it is for that token and makes codes that this program can make.
fn live_seed(package: &SeedPackage, serial: &str) -> Option<LiveSeed> {
    let algorithm = [Algorithm::Sha1, Algorithm::Sha256, Algorithm::Sha512]
        .into_iter()
        .find(|algorithm| algorithm.name() == package.algorithm)?;
    let digits = Digits::new(package.digits).ok()?;
    let period = Period::new(u16::try_from(package.period).ok()?).ok()?;
    let secret = otpauth::decode(package.secret_b32.expose()).ok()?;
    let issuer = Name::parse(&package.issuer).ok()?;
    let parameters = Parameters { algorithm, digits, period };
    (package.account == serial).then_some(LiveSeed { issuer, parameters, secret, used: None })
}
