//! A script, played on both sides at once: after every step the same outcome and the same view,
//! and what must always be true. What fails is made as short as it can be and printed as a story.

use std::fmt::Write;

use semilla_core::verifier::Lockout;

use crate::always::Always;
use crate::coverage::Coverage;
use crate::faults::Fault;
use crate::product::Product;
use crate::reference::Reference;
use crate::script::Script;
use crate::words::*;

const START: i64 = 1_764_000_000_000;

/// How a script is played.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub seed: u64,
    pub steps: usize,
    pub fault: Option<Fault>,
    /// Whether the reference is asked; else only the rules that must always hold are.
    pub compared: bool,
}

/// A script that failed.
pub struct Failed {
    pub setting: Setting,
    pub script: Vec<Step>,
    pub why: String,
}

struct World {
    product: Product,
    reference: Reference,
    always: Always,
    view: View,
    compared: bool,
}

impl World {
    fn new(setting: Setting) -> Self {
        let (wait_from, wait_seconds, block_at) =
            [(5, 5, 50), (2, 5, 4), (1, 1, 3), (3, 10, 6)][setting.seed as usize % 4];
        let lockout = Lockout { wait_from, wait_seconds, block_at };
        let product = Product::new(setting.seed, START, lockout, setting.fault);
        let reference = Reference::new(START, (wait_from, wait_seconds, block_at));
        let view = product.view();
        Self { product, reference, always: Always::new(START), view, compared: setting.compared }
    }

    /// Takes one step on both sides.
    fn take(&mut self, step: &Step, coverage: &mut Coverage) -> Result<(), String> {
        let Self { product, reference, .. } = self;
        (product.effects, product.between) = (Vec::new(), Vec::new());
        product.refusals.clear();
        let typed = typed(step, product);
        let outcome = product.step(&typed);
        let after = product.view();
        if self.compared {
            if reference.seeds.len() < product.seeds.len() {
                reference.seeds.clone_from(&product.seeds);
            }
            (reference.effects, reference.between) = (Vec::new(), Vec::new());
            let expected = reference.step(&typed);
            if outcome != expected {
                let why = product.refusals.join(", ");
                return Err(format!("should be {expected:?}, is {outcome:?} ({why})"));
            }
            difference(&reference.view(), &after)?;
        }
        if let Some(unrecorded) = product.unrecorded.pop() {
            return Err(format!("7: a change left no record: {unrecorded}"));
        }
        self.always.look(&self.view, step, outcome, &after)?;
        coverage.count(&self.view, step, outcome, &after, &product.refusals);
        self.view = after;
        Ok(())
    }
}

/// The step with the codes that people read off their screens.
fn typed(step: &Step, product: &Product) -> Step {
    let mut step = step.clone();
    match &mut step {
        Step::Prove { token, code, .. } | Step::Check { token, code } => {
            if let Code::Of { back, steps } = *code {
                let generations = product.tokens.get(*token).map_or(0, |it| it.token.generation);
                let generation = generations.saturating_sub(back);
                let seed = product.seeds.get(&(*token, generation));
                let now = i64::try_from(product.now.seconds() / 30).expect("a step");
                let at = u64::try_from(now + steps).expect("long after 1970");
                *code = Code::Text(seed.map_or_else(|| "00000000".to_owned(), |it| it.code(at)));
            }
        }
        Step::Answer { meanwhile, .. } | Step::Rotate { meanwhile, .. } => {
            for step in meanwhile.iter_mut() {
                *step = typed(step, product);
            }
        }
        _ => {}
    }
    step
}

/// Where two views differ, in words.
fn difference(expected: &View, seen: &View) -> Result<(), String> {
    if expected == seen {
        return Ok(());
    }
    fn first<T: PartialEq + std::fmt::Debug>(
        what: &str,
        expected: &[T],
        seen: &[T],
    ) -> Option<String> {
        let place = (0..expected.len().max(seen.len()))
            .find(|place| expected.get(*place) != seen.get(*place))?;
        let (expected, seen) = (expected.get(place), seen.get(place));
        Some(format!("{what} {place} should be\n    {expected:?}, is\n    {seen:?}"))
    }
    let differs = first("token", &expected.tokens, &seen.tokens)
        .or_else(|| first("phone", &expected.phones, &seen.phones))
        .or_else(|| first("operation", &expected.operations, &seen.operations))
        .or_else(|| first("enrollment", &expected.enrollments, &seen.enrollments))
        .or_else(|| first("person", &expected.people, &seen.people))
        .or_else(|| first("activation code", &expected.codes, &seen.codes))
        .or_else(|| first("effect", &expected.effects, &seen.effects))
        .or_else(|| first("outcome in between", &expected.between, &seen.between));
    Err(differs.unwrap_or_else(|| "the views differ".to_owned()))
}

/// Plays the script of a seed. Counts what it reached.
pub fn play(setting: Setting, coverage: &mut Coverage) -> Result<(), Failed> {
    let (mut world, mut script) = (World::new(setting), Script::new(setting.seed));
    let mut taken = Vec::new();
    for _ in 0..setting.steps {
        let step = script.next(&world.view);
        taken.push(step.clone());
        if let Err(why) = world.take(&step, coverage) {
            return Err(Failed { setting, script: taken, why });
        }
    }
    Ok(())
}

/// Plays these steps; why it failed, and after how many.
fn replay(setting: Setting, script: &[Step]) -> Option<(usize, String)> {
    let (mut world, mut unused) = (World::new(setting), Coverage::default());
    script
        .iter()
        .enumerate()
        .find_map(|(place, step)| world.take(step, &mut unused).err().map(|why| (place + 1, why)))
}

impl Failed {
    /// As few steps as still fail: longer and then shorter runs of them are left out.
    pub fn shrunken(mut self) -> Self {
        let mut run = self.script.len() / 2;
        while run > 0 {
            let (mut place, before) = (0, self.script.len());
            while place + run <= self.script.len() {
                let mut shorter = self.script.clone();
                shorter.drain(place..place + run);
                match replay(self.setting, &shorter) {
                    Some((length, why)) => {
                        shorter.truncate(length);
                        (self.script, self.why) = (shorter, why);
                    }
                    None => place += run,
                }
            }
            if self.script.len() == before || run > 1 {
                run /= 2;
            }
        }
        self
    }

    /// What the script comes to when it is played again.
    pub fn again(&self) -> Option<String> {
        replay(self.setting, &self.script).map(|(_, why)| why)
    }

    /// The same script on the product as it is.
    pub fn without_fault(&self) -> Self {
        let setting = Setting { fault: None, ..self.setting };
        Self { setting, script: self.script.clone(), why: String::new() }
    }

    /// The script as a story, with the seed that tells it again.
    pub fn story(&self) -> String {
        let mut story = format!("{:?}\n", self.setting);
        for (place, step) in self.script.iter().enumerate() {
            let _ = writeln!(story, "{:3}. {step}", place + 1);
        }
        let _ = write!(story, "  => {}", self.why);
        story
    }
}
