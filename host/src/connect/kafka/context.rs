//! What librdkafka's clients tell: their log lines go where ours go, and their last error can be asked for.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What went wrong last with the connections of a client, while nothing has worked since.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<Option<Told>>>);

#[derive(Clone, Debug)]
struct Told {
    reason: String,
    /// It does not pass by itself: the credentials are refused, or there is no TLS to be had.
    is_final: bool,
}

impl Trouble {
    /// In librdkafka's words; none where nothing did.
    pub fn last(&self) -> Option<String> {
        self.lock().as_ref().map(|told| told.reason.clone())
    }

    /// Whether waiting for it to pass is of no use.
    pub(super) fn is_final(&self) -> bool {
        self.lock().as_ref().is_some_and(|told| told.is_final)
    }

    /// Something worked.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    /// What was said, with what went wrong before where that may be the reason.
    pub fn explain(&self, said: &str) -> String {
        match self.last() {
            Some(trouble) if trouble != said => format!("{said} ({trouble})"),
            _ => said.to_owned(),
        }
    }

    fn note(&self, reason: &str, is_final: bool) {
        let mut last = self.lock();
        // That no broker can be reached is no reason: it follows from one.
        if !last.as_ref().is_some_and(|last| last.is_final && !is_final) {
            *last = Some(Told {
                reason: reason.to_owned(),
                is_final,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The context of a client that has no callbacks of its own.
#[derive(Clone, Debug, Default)]
pub struct Quiet {
    /// What went wrong last.
    pub trouble: Trouble,
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        note_error(&self.trouble, &error, reason);
    }
}

impl ConsumerContext for Quiet {}

/// Writes a line of librdkafka. Lost connections are said by whoever waits for an answer, in words of what is waited
/// for: here they would be repeated for as long as a broker is away.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "millstream::kafka", facility, "{message}");
        }
        // A property may be for consumers or producers alone, and stands for all clients of a cluster.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning
            if !matches!(facility, "FAIL" | "ERROR" | "REQTMOUT" | "CONFWARN") =>
        {
            tracing::warn!(target: "millstream::kafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "millstream::kafka", facility, "{message}"),
    }
}

/// Keeps an error of a client's connections.
pub(super) fn note_error(trouble: &Trouble, error: &KafkaError, reason: &str) {
    tracing::debug!(target: "millstream::kafka", %error, "{reason}");
    let code = error.rdkafka_error_code();
    // Of a client without any connection left the reason was told before.
    if code != Some(RDKafkaErrorCode::AllBrokersDown) || trouble.last().is_none() {
        let is_final = matches!(
            code,
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::SSL)
        );
        // How long it took, and how often it was the same, is not worth saying.
        let reason = reason.split_once(" (after ").map_or(reason, |(reason, _)| reason);
        trouble.note(reason, is_final);
    }
}
