//! Key URIs.
