//! AppMóvil.
fn main() {}
