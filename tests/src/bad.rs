//! Wrong bodies, made from a good one: what is no JSON at all, and JSON that says something wrong,
//! with the place where it does; and bodies made up at random.

use serde_json::{Map, Value, json};

use crate::seeded::Seeded;

/// A wrong body, and what has to be said about it.
pub struct Bad {
    /// What is wrong with it.
    pub why: String,
    /// The body.
    pub body: Vec<u8>,
    /// The problem's type.
    pub problem: &'static str,
    /// Where it is wrong; empty where the problem names no place.
    pub pointer: String,
}

impl Bad {
    fn new(why: &str, body: impl Into<Vec<u8>>, problem: &'static str, pointer: &str) -> Self {
        Self { why: why.to_owned(), body: body.into(), problem, pointer: pointer.to_owned() }
    }
}

/// What is no JSON, or too much of it, whatever was meant (security 97, 98).
pub fn unreadable(good: &Value) -> Vec<Bad> {
    let text = good.to_string();
    let deep = |depth: usize| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let padded = |length: usize| format!("{text}{}", " ".repeat(length - text.len()));
    let malformed = |why: &str, body: Vec<u8>| Bad::new(why, body, "malformed", "");
    vec![
        malformed("blank", b" ".to_vec()),
        malformed("half of it", text.as_bytes()[..text.len() - 1].to_vec()),
        malformed("twice", format!("{text}{text}").into_bytes()),
        malformed("a word behind", format!("{text} x").into_bytes()),
        malformed("a byte order mark", [b"\xef\xbb\xbf", text.as_bytes()].concat()),
        malformed("no UTF-8", b"{\"x\":\"\xff\xfe\"}".to_vec()),
        malformed("overlong UTF-8", b"{\"x\":\"\xc0\x80\"}".to_vec()),
        malformed("a lone surrogate", br#"{"x":"\ud800"}"#.to_vec()),
        malformed("a trailing surrogate", br#"{"x":"\udc00a"}"#.to_vec()),
        malformed("a surrogate in UTF-8", b"{\"x\":\"\xed\xa0\x80\"}".to_vec()),
        malformed("a NUL in a string", b"{\"x\":\"a\0b\"}".to_vec()),
        malformed("a line feed in a string", b"{\"x\":\"a\nb\"}".to_vec()),
        malformed("a NUL behind", format!("{text}\0").into_bytes()),
        malformed("NaN", b"{\"x\":NaN}".to_vec()),
        malformed("Infinity", b"{\"x\":-Infinity}".to_vec()),
        malformed("a number beyond numbers", b"{\"x\":1e999}".to_vec()),
        malformed("a leading zero", b"{\"x\":01}".to_vec()),
        malformed("a hexadecimal number", b"{\"x\":0x1}".to_vec()),
        malformed("a comma behind", b"{\"x\":1,}".to_vec()),
        malformed("single quotes", b"{'x':1}".to_vec()),
        malformed("a comment", b"{/* */}".to_vec()),
        malformed("a form", b"cause=seed_release".to_vec()),
        malformed("9 deep", deep(8).into_bytes()),
        malformed("very deep", deep(5000).into_bytes()),
        malformed("deep and open", "[".repeat(16_000).into_bytes()),
        Bad::new("one byte too many", padded(16 * 1024 + 1), "too-large", ""),
    ]
}

/// JSON that says something wrong, and where (security 73, 98).
pub fn wrong(good: &Value) -> Vec<Bad> {
    let at = |pointer: &str, why: &str, body: String| Bad::new(why, body, "validation", pointer);
    let mut bad = Vec::new();
    for body in ["[]", "\"x\"", "7", "true", "null", "[{}]"] {
        bad.push(at("#", &format!("{body} instead of an object"), body.to_owned()));
    }
    let text = good.to_string();
    let empty = good.as_object().is_none_or(Map::is_empty);
    let rest = if empty { "}" } else { "," };
    let unknown = format!("{{\"unknown\":1{rest}{}", &text[1 + usize::from(empty)..]);
    bad.push(at("#/unknown", "an unknown field", unknown));
    for (name, value) in good.as_object().into_iter().flatten() {
        let here = format!("#/{name}");
        let doubled = format!("{{\"{name}\":{value},{}", &text[1..]);
        bad.push(at(&here, "a field twice", doubled));
        let mut missing = good.clone();
        missing.as_object_mut().expect("an object").remove(name);
        bad.push(at("", &format!("perhaps too few: no {name}"), missing.to_string()));
        for other in others(value) {
            let mut changed = good.clone();
            changed[name] = other.clone();
            let shown: String = other.to_string().chars().take(40).collect();
            bad.push(at(&here, &format!("{name} is {shown}"), changed.to_string()));
        }
    }
    bad
}

/// Values of other kinds than this one.
fn others(value: &Value) -> Vec<Value> {
    let huge = serde_json::from_str("123456789012345678901234567890").expect("a number");
    let all =
        [json!(7), json!(true), json!([]), json!({"x": 1}), json!("\u{202e}x"), json!(-1.5), huge];
    let differs = |other: &Value| std::mem::discriminant(other) != std::mem::discriminant(value);
    let mut others: Vec<Value> = all.into_iter().filter(differs).collect();
    if value.is_number() {
        others.extend([json!(-1), json!(1.5), json!(1e300)]);
    }
    if value.is_string() {
        others.extend([json!("x".repeat(5000)), json!("\u{0}"), json!("")]);
    }
    others
}

/// Something that looks like a request now and then: fields of `good`, others, values of all
/// kinds, and bytes gone wrong.
pub fn random(seeded: &mut Seeded, good: &Value) -> Vec<u8> {
    let mut body = match seeded.below(10) {
        0 => value(seeded, 0).to_string().into_bytes(),
        _ => {
            let mut object = good.as_object().cloned().unwrap_or_default();
            for _ in 0..seeded.below(4) {
                let names: Vec<String> = object.keys().cloned().collect();
                let name = match names.as_slice() {
                    [] => text(seeded),
                    _ if seeded.below(4) == 0 => text(seeded),
                    names => seeded.one_of(names).clone(),
                };
                match seeded.below(5) {
                    0 => drop(object.remove(&name)),
                    _ => drop(object.insert(name, value(seeded, 0))),
                }
            }
            Value::Object(object).to_string().into_bytes()
        }
    };
    // Bytes gone wrong, in one of three bodies.
    if !body.is_empty() && seeded.below(3) == 0 {
        for _ in 0..=seeded.below(3) {
            let place = seeded.below(body.len());
            match seeded.below(3) {
                0 => body[place] = seeded.number().to_le_bytes()[0],
                1 => body.truncate(place),
                _ => body.insert(place, *seeded.one_of(b"{}[]\",:\\\0\n\xff")),
            }
            if body.is_empty() {
                break;
            }
        }
    }
    body
}

fn text(seeded: &mut Seeded) -> String {
    let known = [
        "asker", "cause", "user", "code", "name", "login", "count", "first", "x", "", "\u{202e}",
        "\0",
    ];
    match seeded.below(3) {
        0 => (*seeded.one_of(&known)).to_owned(),
        1 => "ñ".repeat(seeded.below(300)),
        _ => (0..seeded.below(20))
            .filter_map(|_| char::from_u32(seeded.below(0x3000) as u32))
            .collect(),
    }
}

fn value(seeded: &mut Seeded, depth: usize) -> Value {
    match seeded.below(if depth < 6 { 9 } else { 6 }) {
        0 => Value::Null,
        1 => json!(seeded.below(2) == 0),
        2 => json!(seeded.number()),
        3 => json!(f64::from_bits(seeded.number())),
        4 => json!(text(seeded)),
        5 => json!(crate::places::NOBODY),
        6 => (0..seeded.below(5)).map(|_| value(seeded, depth + 1)).collect(),
        _ => (0..seeded.below(5)).map(|_| (text(seeded), value(seeded, depth + 1))).collect(),
    }
}
