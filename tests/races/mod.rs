//! What holds whatever runs at once.
