//! What the demonstration prints, and which expectations held.

use std::time::Duration;

/// Prints as it goes, and counts.
#[derive(Default)]
pub struct Report {
    held: usize,
    failed: Vec<String>,
}

impl Report {
    /// Starts a part.
    pub fn chapter(&mut self, title: &str) {
        println!("\n== {title}");
    }

    /// Says what is being done.
    pub fn step(&mut self, what: &str) {
        println!("-- {what}");
    }

    /// Prints lines as they are, indented.
    pub fn text(&mut self, text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    /// Checks an expectation.
    pub fn expect(&mut self, holds: bool, what: &str) {
        println!("   {}  {what}", if holds { "ok    " } else { "FAILED" });
        if holds {
            self.held += 1;
        } else {
            self.failed.push(what.to_owned());
        }
    }

    /// Prints the end; returns how many expectations did not hold.
    pub fn end(self, took: Duration) -> usize {
        println!("\n{} expectations held, {} did not, in {} s", self.held, self.failed.len(), took.as_secs());
        for failed in &self.failed {
            println!("   FAILED  {failed}");
        }
        self.failed.len()
    }
}
