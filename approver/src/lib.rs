//! AppMóvil.
