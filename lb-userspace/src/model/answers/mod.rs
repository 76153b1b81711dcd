//! The answer space: what the kernel is to answer ([`wanted`]), what that looks like there ([`image`]), where there is room for it
//! ([`pages`]), how a question is found ([`index`]), and what lies there right now ([`placed`]).

pub mod image;
pub mod index;
pub mod negatives;
pub mod pages;
pub mod placed;
pub mod wanted;
