//! What should be, what is, and the steps between: pure. Nothing here does I/O, awaits, or reads a clock.

pub mod actual;
pub mod announcement;
pub mod answers;
pub mod backends;
pub mod certificate;
pub mod desired;
pub mod difference;
pub mod dns;
pub mod explain;
pub mod flows;
pub mod health;
pub mod history;
pub mod host;
pub mod intent;
pub mod leaving;
pub mod load;
pub mod maglev;
pub mod op;
pub mod plan;
pub mod pool;
pub mod prefix;
pub mod reach;
pub mod schedule;
pub mod space;
pub mod target;
pub mod tracking;
