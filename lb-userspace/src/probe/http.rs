//! Whether a page is there, by HTTP/1.1 or HTTPS.

use super::{
    dial::{Dial, Dialed},
    outcome::Outcome,
    tls::{self, Clients},
};
use crate::model::{health::Failure, intent::Http};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Method, Request,
    body::{Bytes, Incoming},
    client::conn::http1::handshake,
    header::{CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use std::{error::Error as _, io, net::SocketAddr, pin::pin};
use tokio::io::{AsyncRead, AsyncWrite};

/// What is looked for has to be in so much of a page.
const LONGEST_BODY: usize = 65_536;

/// Asks for the page.
pub async fn probe(dial: &Dial<'_>, http: &Http, clients: &Clients) -> Outcome {
    let address = dial.address;
    let Dialed { socket: stream, led: _led } = match dial.connect().await {
        Ok(dialed) => dialed,
        Err(outcome) => return outcome,
    };
    let Some(tls) = &http.tls else { return exchange(stream, address, http).await };
    match tls::connect(stream, address, tls, clients).await {
        Ok((stream, certificate)) => {
            let outcome = exchange(stream, address, http).await;
            Outcome { certificate: certificate.map(Box::new), ..outcome }
        }
        Err(outcome) => outcome,
    }
}

async fn exchange<S>(stream: S, address: SocketAddr, http: &Http) -> Outcome
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = match handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await {
        Ok(both) => both,
        Err(error) => return failed(&error),
    };
    let host = http.host.clone().unwrap_or_else(|| address.to_string());
    let request = Request::builder()
        .method(if http.head { Method::HEAD } else { Method::GET })
        .uri(&http.path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("lb/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::new());
    let Ok(request) = request else { return Failure::Protocol.into() };
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let line = status.to_string();
        let is_right = http.status.iter().any(|(first, last)| (*first..=*last).contains(&status.as_u16()));
        if !is_right {
            return Ok(Outcome::from(Failure::Status(status.as_u16())).with_output(line.as_bytes()));
        }
        match &http.body {
            Some(wanted) => body(response.into_body(), wanted, &line).await,
            None => Ok(Outcome::from(Ok(())).with_output(line.as_bytes())),
        }
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    let done = tokio::select! {
        done = &mut exchange => done,
        // A server may close behind its answer, of which something is still to be taken.
        _ = &mut connection => exchange.await,
    };
    done.unwrap_or_else(|error: hyper::Error| failed(&error))
}

/// Looks for something in a page, and reads no more of it than that takes.
async fn body(mut page: Incoming, wanted: &str, line: &str) -> Result<Outcome, hyper::Error> {
    let mut read: Vec<u8> = Vec::new();
    while let Some(frame) = page.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        // What is wanted may begin in what came before.
        let from = read.len().saturating_sub(wanted.len());
        read.extend(data.iter().take(LONGEST_BODY - read.len()));
        let news = read.get(from..).unwrap_or_default();
        if news.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
            return Ok(Outcome::from(Ok(())).with_output(line.as_bytes()));
        }
        if read.len() == LONGEST_BODY {
            break;
        }
    }
    Ok(Outcome::from(Failure::Body).with_output(&read))
}

fn failed(error: &hyper::Error) -> Outcome {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let outcome = match cause {
        Some(cause) => Outcome::from(io::Error::from(cause.kind())),
        None if error.is_incomplete_message() || error.is_closed() || error.is_canceled() => Failure::Closed.into(),
        None => Failure::Protocol.into(),
    };
    outcome.with_output(error.to_string().as_bytes())
}
