//! What should be, what is, and the steps between: pure. Nothing here does I/O, awaits, or reads a clock.

pub mod actual;
pub mod announcement;
pub mod answers;
pub mod backends;
pub mod desired;
pub mod difference;
pub mod dns;
pub mod explain;
pub mod flows;
pub mod health;
pub mod host;
pub mod intent;
pub mod leaving;
pub mod maglev;
pub mod op;
pub mod plan;
pub mod prefix;
pub mod reach;
pub mod space;
pub mod tracking;
