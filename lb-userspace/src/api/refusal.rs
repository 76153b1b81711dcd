//! Why a request is refused: one sentence, and a kind that status codes and exit codes go by.

use crate::{dns::listen::ListenError, kernel::KernelError};
use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request is no JSON, or not what belongs there.
    BadRequest,
    /// It says nobody's token.
    Unauthorized,
    /// What it names is not there.
    NotFound,
    /// The resource knows no such method.
    MethodNotAllowed,
    /// What it would make is there already.
    Conflict,
    /// It is too large.
    TooLarge,
    /// The config is wrong, or would be.
    Invalid,
    /// The state can't be kept, or the config's file not be written.
    Storage,
    /// The kernel refused.
    Kernel,
    /// The agent is stopping.
    Stopping,
    /// Something else failed.
    Failed,
}

impl Kind {
    /// All of them, each with its status code.
    pub const ALL: [(Self, StatusCode); 11] = [
        (Self::BadRequest, StatusCode::BAD_REQUEST),
        (Self::Unauthorized, StatusCode::UNAUTHORIZED),
        (Self::NotFound, StatusCode::NOT_FOUND),
        (Self::MethodNotAllowed, StatusCode::METHOD_NOT_ALLOWED),
        (Self::Conflict, StatusCode::CONFLICT),
        (Self::TooLarge, StatusCode::PAYLOAD_TOO_LARGE),
        (Self::Invalid, StatusCode::UNPROCESSABLE_ENTITY),
        (Self::Storage, StatusCode::INSUFFICIENT_STORAGE),
        (Self::Kernel, StatusCode::INTERNAL_SERVER_ERROR),
        (Self::Stopping, StatusCode::SERVICE_UNAVAILABLE),
        (Self::Failed, StatusCode::INTERNAL_SERVER_ERROR),
    ];

    /// The status code of a response.
    pub fn status(self) -> StatusCode {
        let own = Self::ALL.iter().find(|(kind, _)| *kind == self);
        own.map_or(StatusCode::INTERNAL_SERVER_ERROR, |(_, status)| *status)
    }

    /// The exit code of the command.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::BadRequest | Self::Invalid => 2,
            Self::Kernel => 3,
            _ => 1,
        }
    }
}

/// Why a command was not carried out.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{error}")]
pub struct Refusal {
    /// One sentence for the operator.
    pub error: String,
    /// What kind it is.
    pub kind: Kind,
}

impl Refusal {
    /// Of this kind.
    pub fn new(kind: Kind, error: impl Into<String>) -> Self {
        Self { error: error.into(), kind }
    }

    /// Something failed.
    pub fn failed(error: &anyhow::Error) -> Self {
        let of_kernel = error.is::<KernelError>() || error.is::<ListenError>();
        Self::new(if of_kernel { Kind::Kernel } else { Kind::Failed }, format!("{error:#}"))
    }

    /// What is named is not there.
    pub fn not_found(error: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.kind.status(), Json(self)).into_response()
    }
}
