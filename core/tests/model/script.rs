//! Scripts out of a seed: each step is drawn with a look at what can be seen, half of the time
//! something that makes sense there, else anything at all.

use std::collections::VecDeque;

use crate::random::Random;
use crate::tables::{BLOCK, BLOCK_BY_SYSTEM, PHONE_IS_GONE, RELEASE, ROTATE};
use crate::words::*;

const ADMINISTRATORS: [usize; 2] = [1, 2];
const OPERATOR: By = By::Person(0);
const HOLDERS: [usize; 4] = [1, 2, 3, 4];

pub struct Script {
    random: Random,
    /// How it begins: tokens to speak of, and a phone for everybody.
    beginning: VecDeque<Step>,
}

impl Script {
    pub fn new(seed: u64) -> Self {
        let random = Random::new(!seed);
        let mut beginning = VecDeque::new();
        for token in 0..4 {
            beginning.push_back(Step::Issue { by: OPERATOR, physical: false });
            beginning.push_back(Step::Allot { by: OPERATOR, token, company: 1 + token % 2 });
        }
        for person in 0..PEOPLE.len() {
            beginning.push_back(Step::Activate { person });
            let (typed, bend) = (Typed::Issued(0), Bend::Honest);
            beginning.push_back(Step::Bind { person, typed, bend });
        }
        // Sometimes one begins poorer.
        for _ in 0..random.below(5) {
            beginning.remove(random.below(beginning.len()));
        }
        Self { random, beginning }
    }

    pub fn next(&mut self, view: &View) -> Step {
        if let Some(step) = self.beginning.pop_front() {
            return step;
        }
        let token = self.random.below(view.tokens.len() + usize::from(self.random.percent(2)));
        match self.random.below(100) {
            0..8 => self.wait(),
            8..15 => self.about_people(view),
            15..70 if token < view.tokens.len() => self.sensible(token, view),
            15..70 => Step::Chores,
            _ => self.anything(token, view),
        }
    }

    fn one<T: Clone>(&self, choices: &[T]) -> T {
        self.random.one_of(choices)
    }

    fn wait(&self) -> Step {
        Step::Wait(match self.random.below(20) {
            0..5 => 1_000 + self.random.number() % 20_000,
            5..14 => 30_000,
            14..16 => 60_000 + self.random.number() % 60_000,
            16..18 => 300_000 - self.random.number() % 2,
            18 => 600_000,
            _ => 24 * 3_600_000 - self.random.number() % 2,
        })
    }

    fn anyone(&self) -> By {
        match self.random.below(12) {
            0 => By::System,
            place => By::Person(place % PEOPLE.len()),
        }
    }

    fn administrator(&self) -> By {
        By::Person(self.one(&ADMINISTRATORS))
    }

    fn phone(&self, person: usize) -> PhoneRef {
        PhoneRef { person, back: usize::from(self.random.percent(25)) }
    }

    /// This very phone.
    fn phone_at(&self, view: &View, place: usize) -> PhoneRef {
        let person = view.phones[place].owner;
        let back = view.phones[place + 1..].iter().filter(|it| it.owner == person).count();
        PhoneRef { person, back }
    }

    fn code(&self) -> Code {
        let back = [0, 0, 0, 0, 0, 0, 1, 2][self.random.below(8)];
        let steps = [0, 0, 0, 0, -1, 1, -2, 2][self.random.below(8)];
        match self.random.below(10) {
            0 => Code::Text("000000".to_owned()),
            1 => Code::Text("00000000".to_owned()),
            _ => Code::Of { back, steps },
        }
    }

    fn good_code(&self) -> Code {
        match self.random.below(5) {
            0 => self.code(),
            1 => Code::Of { back: 0, steps: -1 },
            _ => Code::Of { back: 0, steps: 0 },
        }
    }

    fn ask(&self, token: usize, what: &'static str, by: By) -> Step {
        let cause = match what {
            "release" => Some(self.one(&RELEASE)),
            "rotate" => Some(self.one(&ROTATE)),
            _ => None,
        };
        Step::Ask { by, token, what, cause }
    }

    fn block(&self, token: usize) -> Step {
        // The two that end most of a script come less often.
        let cause = self.one(&BLOCK);
        let cause = if self.random.percent(50) { cause } else { self.one(&[BLOCK[0], BLOCK[4]]) };
        Step::Block { by: self.administrator(), token, cause }
    }

    /// Something that makes sense for a token as it is.
    fn sensible(&self, token: usize, view: &View) -> Step {
        let it = &view.tokens[token];
        if let Some(id) = it.pending.filter(|_| self.random.percent(60)) {
            return self.reply(view, id);
        }
        let guessing = if it.state == "assigned" { 80 } else { 40 };
        if it.failures > 0 && self.random.percent(guessing) {
            return self.guess_on(token, view);
        }
        let roll = self.random.below(20);
        match it.state {
            "stock" => match roll {
                0 if self.random.percent(50) => Step::Retire { by: OPERATOR, token },
                _ => Step::Allot { by: OPERATOR, token, company: 1 + self.random.below(2) },
            },
            "company" => match roll {
                0 if self.random.percent(50) => Step::Retire { by: OPERATOR, token },
                1 => Step::Withdraw { by: OPERATOR, token },
                _ => Step::Assign { by: self.administrator(), token, to: self.one(&HOLDERS) },
            },
            "assigned" => match roll {
                0..2 => self.block(token),
                2..4 => self.ask(token, "release", self.administrator()),
                4 => Step::GiveUp { token },
                _ if it.enrollment.is_none() => Step::OpenAgain { by: self.administrator(), token },
                _ => self.enroll(token, view),
            },
            "active" => match roll {
                0..12 if it.enrollment.is_some() => self.enroll(token, view),
                0..3 => self.block(token),
                3..5 => self.ask(token, "release", self.administrator()),
                5 => self.ask(token, "rotate", self.administrator()),
                6..8 => self.ask(token, "rotate", By::Person(it.holder.unwrap_or(1))),
                8..10 => match it.live.and_then(|(_, phone)| phone) {
                    Some(phone) => self.rotate(self.phone_at(view, phone), token),
                    None => self.block(token),
                },
                12 if it.enrollment.is_some() => {
                    Step::OpenAgain { by: self.administrator(), token }
                }
                _ => Step::Check { token, code: self.code() },
            },
            "blocked" => match roll {
                0..7 => self.ask(token, "release", self.administrator()),
                7..17 => self.ask(token, "unblock", self.administrator()),
                _ => Step::Check { token, code: self.good_code() },
            },
            _ if self.random.percent(20) => Step::Retire { by: OPERATOR, token },
            _ => self.anything(token, view),
        }
    }

    /// Somebody who guessed wrongly goes on: waits, and guesses again.
    fn guess_on(&self, token: usize, view: &View) -> Step {
        let it = &view.tokens[token];
        let code = Code::Text("00000000".to_owned());
        if it.waits_until.is_some() && self.random.percent(50) {
            return Step::Wait(60_000);
        }
        match it.enrollment.map(|id| view.enrollments[id].0) {
            Some("delivered") => {
                Step::Prove { token, on: it.holder.map(|it| self.phone(it)), code }
            }
            _ => Step::Check { token, code },
        }
    }

    /// The way of a seed, from the enrollment to its proof.
    fn enroll(&self, token: usize, view: &View) -> Step {
        let it = &view.tokens[token];
        let holder = it.holder.unwrap_or(1);
        let phone = self.random.percent(85).then(|| self.phone(holder));
        match it.enrollment.map(|id| view.enrollments[id].0) {
            Some("open") => Step::Deliver { token, to: phone },
            Some("shown") => Step::Prove { token, on: None, code: self.good_code() },
            _ => Step::Prove { token, on: Some(self.phone(holder)), code: self.good_code() },
        }
    }

    fn say(&self) -> Say {
        match self.random.below(20) {
            0 => Say::YesToWrongNumber,
            1 => Say::No("user_cancelled"),
            2 => Say::No("unknown_request"),
            3 => Say::No("suspected_fraud"),
            _ => Say::Yes,
        }
    }

    fn bend(&self) -> Bend {
        use Bend::*;
        match self.random.below(5) {
            0 => self.one(&[
                OtherKey,
                OtherRequest,
                OtherDisplay,
                OtherNonce,
                OtherOperation,
                OtherServer,
                OtherKind,
                FlippedBit,
                UsedCounter,
            ]),
            _ => Honest,
        }
    }

    /// A phone's reply to an operation that waits.
    fn reply(&self, view: &View, id: usize) -> Step {
        let operation = &view.operations[id];
        let about = operation.about;
        let later = view.operations[id + 1..].iter().filter(|it| it.about == about).count();
        let on = match self.random.below(10) {
            0 => self.phone(self.random.below(PEOPLE.len())),
            _ => self.phone_at(view, self.one(&operation.asked)),
        };
        let to = OperationRef { about, back: later };
        // What concerns people comes seldom, and every end of it is to be seen.
        let mistyped = matches!(about, About::Person(_)) && self.random.percent(12);
        let say = if mistyped { Say::YesToWrongNumber } else { self.say() };
        Step::Answer { to, on, say, bend: self.bend(), meanwhile: self.meanwhile(about) }
    }

    fn rotate(&self, on: PhoneRef, token: usize) -> Step {
        Step::Rotate {
            on,
            token,
            cause: self.one(&ROTATE),
            stale: self.random.percent(10),
            bend: match self.bend() {
                // A request to rotate has neither.
                Bend::OtherRequest
                | Bend::OtherDisplay
                | Bend::OtherNonce
                | Bend::OtherOperation => Bend::Honest,
                other => other,
            },
            meanwhile: self.meanwhile(About::Token(token)),
        }
    }

    /// Now and then somebody is faster.
    fn meanwhile(&self, about: About) -> Vec<Step> {
        let About::Token(token) = about else { return Vec::new() };
        if !self.random.percent(12) {
            return Vec::new();
        }
        vec![match self.random.below(6) {
            0 | 1 => self.block(token),
            2 => Step::GiveUp { token },
            3 => Step::OpenAgain { by: self.administrator(), token },
            4 => Step::Cancel { to: OperationRef { about, back: 0 } },
            _ => Step::Check { token, code: self.code() },
        }]
    }

    fn about_people(&self, view: &View) -> Step {
        let person = self.random.below(PEOPLE.len());
        if let Some(id) = view.people[person].1.filter(|_| self.random.percent(70)) {
            return self.reply(view, id);
        }
        let mine =
            |state: &str| view.phones.iter().any(|it| it.owner == person && it.state == state);
        match (mine("bound"), self.random.below(6)) {
            (false, 0..2) if view.people[person].0 => {
                Step::Recover { by: By::Person(self.random.below(3)), person }
            }
            (_, 0..3) => Step::Activate { person },
            _ => self.bind(person),
        }
    }

    fn bind(&self, person: usize) -> Step {
        let typed = match self.random.below(8) {
            0 => Typed::Guessed,
            1 => Typed::Issued(1),
            _ => Typed::Issued(0),
        };
        let bend = match self.bend() {
            Bend::OtherRequest | Bend::OtherDisplay | Bend::OtherOperation | Bend::UsedCounter => {
                Bend::Honest
            }
            other => other,
        };
        Step::Bind { person, typed, bend }
    }

    /// Anything at all, by anybody.
    fn anything(&self, token: usize, view: &View) -> Step {
        let (by, person) = (self.anyone(), self.random.below(PEOPLE.len()));
        let about =
            if self.random.percent(70) { About::Token(token) } else { About::Person(person) };
        let causes = [&RELEASE[..], &BLOCK, &BLOCK_BY_SYSTEM, &ROTATE].concat();
        match self.random.below(26) {
            0 => Step::Issue { by, physical: self.random.percent(30) },
            1 => Step::Allot { by, token, company: 1 + self.random.below(2) },
            2 => Step::Withdraw { by, token },
            3 if self.random.percent(30) => Step::Retire { by, token },
            4 => Step::Assign { by, token, to: person },
            5 => Step::OpenAgain { by, token },
            6 => Step::Deliver { token, to: Some(self.phone(person)) },
            7 => Step::Prove { token, on: Some(self.phone(person)), code: self.code() },
            8 if self.random.percent(30) => Step::GiveUp { token },
            9 => Step::Block { by, token, cause: self.one(&causes) },
            10..14 => {
                let what = self.one(&["release", "unblock", "rotate"]);
                match self.random.percent(70) {
                    true => self.ask(token, what, by),
                    false => Step::Ask { by, token, what, cause: Some(self.one(&causes)) },
                }
            }
            14 => Step::Answer {
                to: OperationRef { about, back: self.random.below(2) },
                on: self.phone(person),
                say: self.say(),
                bend: self.bend(),
                meanwhile: self.meanwhile(about),
            },
            15 => self.rotate(self.phone(person), token),
            16 => Step::Cancel { to: OperationRef { about, back: self.random.below(2) } },
            17 => Step::Chores,
            18 => Step::Check { token, code: self.code() },
            19 => Step::Activate { person },
            20 => self.bind(person),
            21 if self.random.percent(40) => {
                let phone = self.phone(person);
                Step::Revoke { by, phone, cause: self.one(&PHONE_IS_GONE) }
            }
            22 => Step::Recover { by, person },
            23 => Step::FourEyes(self.random.percent(50)),
            24 => Step::AuthenticatorApp(self.random.percent(30)),
            25 => Step::Deliver { token, to: None },
            _ => self.about_people(view),
        }
    }
}
