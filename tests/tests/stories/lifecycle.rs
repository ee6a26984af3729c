//! Every row of the table of operations, from every state and for every cause: allowed as the table
//! says, with the effects it says, and otherwise refused with nothing changed (security 83 to 86).
//! The stories read the table, so that a new row without a way to ask for it here fails.

use semilla_approver::Phone;
use semilla_core::operations::{
    Action, BlockCause, Cause, Party, ReleaseCause, RotateCause, SeedEffect, State, TABLE, Target,
};
use semilla_core::otp::Step;
use semilla_tests::http::{Expect, Reply};
use semilla_tests::world::World;
use serde_json::{Value, json};

use crate::flow::approve;

/// A token that was brought into a state, and everybody around it.
struct Stage<'w> {
    world: &'w World,
    administrator: &'w Phone,
    token: String,
    serial: String,
    holder: String,
    /// To whom it would be assigned next.
    receiver: String,
    /// The holder's phone, where one was enrolled.
    phone: Option<Phone>,
    /// The state a block was put on.
    before: State,
}

impl<'w> Stage<'w> {
    /// A token in `state`, held by somebody of its own where anybody holds it. A blocked one was
    /// active, and keeps its seed.
    async fn set(
        world: &'w World,
        administrator: &'w Phone,
        number: usize,
        state: State,
    ) -> Stage<'w> {
        let program = &world.company.program;
        let person = async |name: &str| {
            let login = format!("{name}.{number}");
            let person = json!({"login": login, "name": format!("Persona {number}")});
            let made = program.post("/api/v1/users", person).await.expect(201);
            made["id"].as_str().expect("an id").to_owned()
        };
        let holder = person("titular").await;
        let (token, serial) = world.token_in_pool(&world.company).await;
        let mut stage = Stage {
            world,
            administrator,
            token,
            serial,
            receiver: holder.clone(),
            holder,
            phone: None,
            before: State::Active,
        };
        match state {
            State::Company => {}
            State::Stock => drop(stage.try_to(Action::Withdraw, None).await.expect(200)),
            State::Retired => drop(stage.try_to(Action::Retire, None).await.expect(200)),
            State::Assigned => drop(stage.try_to(Action::Assign, None).await.expect(201)),
            State::Active | State::Blocked => {
                let opened = stage.try_to(Action::Assign, None).await.expect(201);
                let enrollment = opened["enrollment"]["id"].as_str().expect("an id").to_owned();
                stage.phone = Some(world.enrolled_phone(&world.company, &enrollment).await);
                if state == State::Blocked {
                    let cause = Cause::Block(BlockCause::UserInactive);
                    stage.try_to(Action::Block, Some(cause)).await.expect(200);
                }
            }
        }
        // Whoever holds one already gets no other: that is another story.
        stage.receiver = person("otra").await;
        stage
    }

    /// Asks for an operation; where a phone has to agree, that is the answer to asking.
    async fn try_to(&self, action: Action, cause: Option<Cause>) -> Reply {
        let program = &self.world.company.program;
        let path = |what: &str| format!("/api/v1/tokens/{}/{what}", self.token);
        let because = match cause {
            Some(cause) => json!({"cause": cause.name()}),
            None => json!({}),
        };
        let run = json!({"first": self.serial, "count": 1});
        let mut to_company = run.clone();
        to_company["company"] = self.world.company.id.as_str().into();
        let operator = &self.world.operator;
        match action {
            Action::Issue => operator.post("/api/v1/stock/issue", run).await,
            Action::Allot => operator.post("/api/v1/stock/allot", to_company).await,
            Action::Withdraw => operator.post("/api/v1/stock/withdraw", run).await,
            Action::Retire => operator.post("/api/v1/stock/retire", run).await,
            Action::Assign => program.post(&path("assign"), json!({"user": self.receiver})).await,
            // A new enrollment is what asks for the holder's part.
            Action::Enroll => program.post(&path("enrollments"), json!({})).await,
            Action::Rotate => program.post(&path("rotate"), because).await,
            Action::Block => program.post(&path("block"), because).await,
            Action::Unblock => program.post(&path("unblock"), json!({})).await,
            Action::Release => program.post(&path("release"), because).await,
        }
    }

    /// The phone's part of what was asked for.
    async fn finish(&mut self, action: Action, cause: Option<Cause>, asked: &Value) {
        match action {
            Action::Release | Action::Unblock => {
                approve(self.world, self.administrator, asked).await
            }
            Action::Rotate => {
                let phone = self.phone.as_ref().expect("a phone");
                approve(self.world, phone, asked).await;
                self.world.pass(30).await;
                // For a new phone, that one would have to be bound first: until it proves the new
                // seed, the old one stays live.
                if cause != Some(Cause::Rotate(RotateCause::NewPhone)) {
                    phone.enroll_next().await.expect("enrolled");
                }
            }
            Action::Enroll => {
                let enrollment = asked["enrollment"]["id"].as_str().expect("an id").to_owned();
                let phone = self.world.enrolled_phone(&self.world.company, &enrollment).await;
                self.phone = Some(phone);
            }
            _ => {}
        }
    }

    /// The token as whoever may see it does.
    async fn seen(&self) -> Value {
        let own = self.world.company.program.get(&format!("/api/v1/tokens/{}", self.token)).await;
        if own.status.as_u16() == 200 {
            return own.json();
        }
        let page = format!("/api/v1/stock?q={}", self.serial);
        self.world.operator.get(&page).await.expect(200)["items"][0].clone()
    }

    async fn state(&self) -> String {
        self.seen().await["state"].as_str().expect("a state").to_owned()
    }

    /// The holder's code of the next step, as whatever the phone holds makes it.
    async fn fresh_code(&self) -> String {
        self.world.pass(60).await;
        let step = Step(self.world.now().seconds() / 30);
        let phone = self.phone.as_ref().expect("a phone");
        phone.raw().code_at(&self.serial, step).expect("a code").code.expose().to_owned()
    }

    async fn is_accepted(&self, code: &str) -> bool {
        self.world.company.program.verify(&self.token, code).await
    }
}

/// The causes an administrator can ask with.
fn causes(action: Action) -> Vec<Option<Cause>> {
    let all = action.operation().causes;
    let of_system =
        [Cause::Block(BlockCause::TooManyFailures), Cause::Block(BlockCause::FraudReported)];
    let asked: Vec<_> = all.iter().filter(|cause| !of_system.contains(cause)).copied().collect();
    if asked.is_empty() { vec![None] } else { asked.into_iter().map(Some).collect() }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_83_each_operation_is_done_from_the_states_of_the_table_and_refused_from_others() {
    let world = World::begin().await;
    let administrator = world.bound_phone(&world.company, &world.company.administrator).await;
    let (mut number, mut done, mut refused) = (0, 0, 0);
    for operation in &TABLE {
        let action = operation.action;
        for state in State::ALL {
            // What is issued is new: whatever has the serial number stands in its way.
            let allowed = operation.from.contains(&state);
            for cause in causes(action) {
                number += 1;
                let mut stage = Stage::set(&world, &administrator, number, state).await;
                let what = format!("{} {state:?} {cause:?}", action.name());
                let before = stage.seen().await;
                let asked = stage.try_to(action, cause).await;
                if !allowed {
                    refused += 1;
                    let expected = match (action, state) {
                        (Action::Issue, _) => "validation",
                        // Companies do not see what is in stock, or came to its end there.
                        (Action::Allot | Action::Withdraw | Action::Retire, _) => "state-conflict",
                        (_, State::Stock) => "not-found",
                        _ => "state-conflict",
                    };
                    let problem = asked.refused(expected);
                    if expected == "state-conflict" {
                        assert_eq!(problem["state"], state.name(), "{what}: {problem}");
                        assert!(problem["allowed"].is_array(), "{what}: {problem}");
                    }
                    assert_eq!(stage.seen().await, before, "{what}: nothing changed");
                    continue;
                }
                done += 1;
                let asked = {
                    assert!(asked.status.is_success(), "{what}: {}", asked.json());
                    asked.json()
                };
                stage.finish(action, cause, &asked).await;
                let target = match operation.target {
                    Target::To(state) => state,
                    Target::BeforeBlock => stage.before,
                };
                assert_eq!(stage.state().await, target.name(), "{what}");
                has_its_effect_on_the_seed(&stage, operation.seed, state, cause, &what).await;
                // Of a rotation the last thing done is the enrollment that ends it.
                if let Some(cause) = cause.filter(|_| action != Action::Rotate) {
                    assert_eq!(stage.seen().await["last_cause"], cause.name(), "{what}");
                }
            }
        }
    }
    assert!(done >= 25 && refused >= 60, "{done} done, {refused} refused");
    let reports = semilla_server::workflow::trail::verify(world.server().app.store.as_ref()).await;
    assert!(reports.expect("read").iter().all(|report| report.tampered.is_none()));
}

async fn has_its_effect_on_the_seed(
    stage: &Stage<'_>,
    effect: SeedEffect,
    from: State,
    cause: Option<Cause>,
    what: &str,
) {
    if stage.phone.is_none() {
        return;
    }
    let code = stage.fresh_code().await;
    let accepted = stage.is_accepted(&code).await;
    match effect {
        SeedEffect::LiveOnceProven | SeedEffect::ReplacedOnceProven | SeedEffect::AcceptedAgain => {
            assert!(accepted, "{what}: codes are accepted")
        }
        SeedEffect::Destroyed | SeedEffect::KeptUnlessCauseDestroys => {
            assert!(!accepted, "{what}: codes are refused");
        }
        SeedEffect::None | SeedEffect::EnrollmentOpens => {}
    }
    let seen = stage.seen().await;
    let destroys = matches!(cause, Some(Cause::Block(cause)) if cause.destroys_seed());
    if effect == SeedEffect::Destroyed || destroys {
        assert_eq!(seen["generation"], Value::Null, "{what}: no generation is left");
    } else if from == State::Active {
        assert!(seen["generation"].is_u64(), "{what}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cause_is_required_where_the_table_has_one_and_belongs_to_its_operation() {
    let world = World::begin().await;
    let administrator = world.bound_phone(&world.company, &world.company.administrator).await;
    let stage = Stage::set(&world, &administrator, 1, State::Active).await;
    let before = stage.seen().await;
    let all = [
        Cause::Release(ReleaseCause::UserLeftCompany),
        Cause::Block(BlockCause::UserInactive),
        Cause::Rotate(RotateCause::Scheduled),
    ];
    for action in [Action::Release, Action::Block, Action::Rotate] {
        let own = action.operation().causes;
        stage.try_to(action, None).await.refused("validation");
        for foreign in all.into_iter().filter(|cause| !own.contains(cause)) {
            let problem = stage.try_to(action, Some(foreign)).await.refused("validation");
            assert_eq!(problem["errors"][0]["pointer"], "#/cause", "{problem}");
        }
    }
    // Two causes are the system's own.
    for cause in [BlockCause::TooManyFailures, BlockCause::FraudReported] {
        let asked = stage.try_to(Action::Block, Some(Cause::Block(cause))).await;
        assert!(matches!(asked.problem().as_str(), "validation" | "forbidden"), "{}", asked.json());
    }
    assert_eq!(stage.seen().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn security_86_and_f21_a_block_for_a_lost_phone_takes_the_phone_and_all_its_tokens_along() {
    let world = World::begin().await;
    let administrator = world.bound_phone(&world.company, &world.company.administrator).await;
    for cause in [BlockCause::DeviceLostOrStolen, BlockCause::DeviceChange] {
        let number = if cause == BlockCause::DeviceChange { 2 } else { 1 };
        let stage = Stage::set(&world, &administrator, number, State::Active).await;
        let path = format!("/api/v1/devices?user={}", stage.holder);
        let devices = world.company.program.get(&path).await.expect(200);
        assert_eq!(devices["items"][0]["state"], "bound");
        // No phone is asked: the thief may have it.
        stage.try_to(Action::Block, Some(Cause::Block(cause))).await.expect(200);
        assert_eq!(stage.state().await, "blocked");
        let devices = world.company.program.get(&path).await.expect(200);
        assert_eq!(devices["items"][0]["state"], "revoked");
        let phone = stage.phone.as_ref().expect("a phone");
        assert!(phone.inbox().await.is_err(), "the phone is not heard any more");
        let unblock = stage.try_to(Action::Unblock, None).await.refused("state-conflict");
        assert!(!unblock["allowed"].to_string().contains("unblock"), "{unblock}");
        let release = Cause::Release(ReleaseCause::SeedRelease);
        let asked = stage.try_to(Action::Release, Some(release)).await.expect(202);
        approve(&world, &administrator, &asked).await;
        assert_eq!(stage.state().await, "company");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_84_the_former_holders_phone_is_dead_for_a_released_token_for_ever() {
    let world = World::begin().await;
    let administrator = world.bound_phone(&world.company, &world.company.administrator).await;
    let mut stage = Stage::set(&world, &administrator, 1, State::Active).await;
    let former = stage.phone.as_ref().expect("a phone").raw().copy().expect("a copy");
    let release = Cause::Release(ReleaseCause::UserLeftCompany);
    let asked = stage.try_to(Action::Release, Some(release)).await.expect(202);
    stage.finish(Action::Release, Some(release), &asked).await;
    // Given to somebody else, and given back to the same person, on the very same phone.
    let holders = stage.phone.take().expect("a phone");
    for receiver in [stage.receiver.clone(), stage.holder.clone()] {
        let is_holder = receiver == stage.holder;
        stage.receiver = receiver;
        let opened = stage.try_to(Action::Assign, None).await.expect(201);
        world.pass(60).await;
        let enrollment = opened["enrollment"]["id"].as_str().expect("an id");
        stage.phone = Some(if is_holder {
            holders.enroll_next().await.expect("enrolled");
            holders.raw().copy().expect("a copy")
        } else {
            world.enrolled_phone(&world.company, enrollment).await
        });
        world.pass(60).await;
        for step in -3_i64..=3 {
            let step = Step(world.now().seconds() / 30).0.saturating_add_signed(step);
            let old = former.raw().code_at(&stage.serial, Step(step)).expect("a code");
            assert!(!stage.is_accepted(old.code.expose()).await);
        }
        world.pass(600).await;
        assert!(stage.is_accepted(&stage.fresh_code().await).await, "the control");
        let asked = stage.try_to(Action::Release, Some(release)).await.expect(202);
        approve(&world, &administrator, &asked).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn security_88_a_company_that_is_deactivated_takes_everything_along_at_once() {
    let (world, active) = World::with_active_token().await;
    let program = &world.company.program;
    let release = format!("/api/v1/tokens/{}/release", active.token);
    program.post(&release, json!({"cause": "seed_release"})).await.expect(202);
    let company = format!("/api/v1/companies/{}", world.company.id);
    let off = json!({"active": false});
    world.operator.send("PATCH", &company, &[], Some(off)).await.expect(200);
    let verify = json!({"token": active.token, "code": active.code()});
    let refused = program.0.post("/api/v1/otp/verify", verify).await.expect_err("refused");
    assert!(refused.to_string().contains("401"), "{refused}");
    assert!(active.administrator.inbox().await.is_err());
    assert!(active.phone.inbox().await.is_err());
    let on = json!({"active": true});
    world.operator.send("PATCH", &company, &[], Some(on)).await.expect(200);
    program.0.forget_access_token();
    assert!(active.administrator.inbox().await.expect("heard").requests.is_empty(), "cancelled");
    world.pass(30).await;
    assert!(program.verify(&active.token, &active.code()).await, "the control");
}

#[test]
fn every_action_of_the_table_is_asked_for_by_somebody() {
    for operation in &TABLE {
        assert!(!operation.parties.is_empty(), "{:?}", operation.action);
        let needs_nobody = operation.parties == [Party::System];
        assert!(!needs_nobody, "{:?} is nobody's to ask for", operation.action);
    }
}
