//! Checks that concern all messages at once.
