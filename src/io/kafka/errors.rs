//! Why Kafka does not do what it was asked: librdkafka's errors, kept and put into sentences.
//! Nothing is retried here.

use super::ffi::{Failure, Hooks, Refused};
use super::{KafkaConfig, Names, RESPONSE_MAX_BYTES};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::{debug, trace, warn};
use windrow_core::settings::config::Secret;
use windrow_core::values::cause::{Cause, Trouble};

/// Why Kafka does not do what it was asked. Each text is a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// The topic, or a topic partition, does not exist, or not any more.
    #[error("{0}")]
    NotThere(String),
    /// The user may not read the topic. Kafka also says this about a topic that does not exist.
    #[error("{0}")]
    TopicDenied(String),
    /// The user has no right on the group. Reading goes on, but tools that show lag see nothing.
    #[error("{0}")]
    GroupDenied(String),
    /// User name or password are wrong. Waiting does not help, and new credentials need a new
    /// client.
    #[error("{0}")]
    Login(String),
    /// A broker's certificate is not trusted, or the port wants TLS. Waiting does not help.
    #[error("{0}")]
    Tls(String),
    /// A broker's certificate is expired or another host's. Waiting does not help, nor does a CA.
    #[error("{0}")]
    Certificate(String),
    /// The port speaks no TLS, or none that we speak. Waiting does not help.
    #[error("{0}")]
    NoTls(String),
    /// Kafka takes another kind of login than is set.
    #[error("{0}")]
    Mechanism(String),
    /// No broker answers, or no broker leads the topic partition: try again.
    #[error("{0}")]
    Unreachable(String),
    /// Bytes that came from the log cannot be read. Nothing more of the topic partition is handed
    /// over until the next start, so that no record is skipped.
    #[error("{0}")]
    Damaged(String),
    /// The client no longer works: make a new one.
    #[error("{0}")]
    Fatal(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<KafkaError> for Trouble {
    fn from(error: KafkaError) -> Self {
        let cause = match &error {
            KafkaError::NotThere(_) => Some(Cause::NoTopic),
            KafkaError::TopicDenied(_) | KafkaError::GroupDenied(_) => Some(Cause::KafkaRights),
            KafkaError::Login(_) => Some(Cause::LoginKafka),
            KafkaError::Tls(_) => Some(Cause::TlsKafka),
            KafkaError::Certificate(_) => Some(Cause::CertificateKafka),
            KafkaError::NoTls(_) => Some(Cause::NoTlsKafka),
            KafkaError::Mechanism(_) => Some(Cause::KafkaMechanism),
            KafkaError::Unreachable(_)
            | KafkaError::Damaged(_)
            | KafkaError::Fatal(_)
            | KafkaError::Other(_) => None,
        };
        Trouble {
            cause,
            text: error.to_string(),
        }
    }
}

/// After so many connections that ended at the first request, the port is taken for one of TLS; and
/// for one without it, after so many that ended in the handshake.
const HUNG_UP_MAX: u32 = 4;

/// The errors that librdkafka has reported about the client as a whole. They answer the question
/// why there is no answer.
pub(super) struct ClientErrors {
    pub(super) bootstrap: String,
    pub(super) topic: String,
    group: String,
    username: String,
    password: Secret,
    names: Box<Names>,
    /// Whether `state` may hold an error that an answer clears. It saves taking the lock.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last [`KafkaError::Login`], `Mechanism`, `Tls`, `Certificate` or `NoTls` since there was
    /// an answer.
    login: Option<KafkaError>,
    /// Why a certificate was refused the last time. The error of the connection follows it, and
    /// says only that one was refused.
    refused: Option<Refused>,
    logins_failed: u64,
    /// Why a broker could not be reached.
    unreachable: Option<String>,
    /// How often brokers hung up at the first request since there was an answer. Once, that is a
    /// broker that is being started; again and again, it is a port that wants TLS.
    hung_up: u32,
    /// Errors that were not reported to the reader yet, each of them once.
    news: Vec<KafkaError>,
    fatal: Option<String>,
    commit_problem: Option<KafkaError>,
}

impl State {
    fn add_news(&mut self, error: KafkaError) {
        if !self.news.contains(&error) {
            self.news.push(error);
        }
    }
}

impl ClientErrors {
    pub(super) fn new(config: &KafkaConfig, names: Box<Names>) -> Self {
        Self {
            bootstrap: config.bootstrap(),
            topic: config.topic.clone(),
            group: config.group.clone(),
            username: config.username.clone(),
            password: config.password.clone(),
            names,
            any: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the errors that hinder a connection, because an answer has come.
    pub(super) fn clear(&self) {
        if self.any.swap(false, Ordering::AcqRel) {
            let mut state = self.lock();
            (state.login, state.unreachable, state.hung_up) = (None, None, 0);
            state.news.retain(|news| {
                !matches!(
                    news,
                    KafkaError::Login(_)
                        | KafkaError::Mechanism(_)
                        | KafkaError::Tls(_)
                        | KafkaError::Certificate(_)
                        | KafkaError::NoTls(_)
                        | KafkaError::Unreachable(_)
                )
            });
        }
    }

    pub(super) fn logins_failed(&self) -> u64 {
        self.lock().logins_failed
    }

    pub(super) fn cannot_log_in(&self) -> bool {
        self.lock().login.is_some()
    }

    pub(super) fn take_news(&self) -> Vec<KafkaError> {
        std::mem::take(&mut self.lock().news)
    }

    /// The error after which the client no longer works, if there was one.
    pub(super) fn fatal(&self) -> Option<KafkaError> {
        self.lock().fatal.clone().map(KafkaError::Fatal)
    }

    pub(super) fn set_fatal(&self, why: &str) {
        let why = self.redact(why);
        self.lock().fatal = Some(format!(
            "cannot go on with Kafka \"{}\": {why}",
            self.bootstrap
        ));
    }

    /// Notes how a group commit has ended. Says whether that differs from the last one.
    pub(super) fn note_commit_problem(&self, problem: Option<&KafkaError>) -> bool {
        let mut state = self.lock();
        let new = state.commit_problem.as_ref() != problem;
        state.commit_problem = problem.cloned();
        new
    }

    /// Why there was no answer.
    pub(super) fn explain_silence(&self) -> KafkaError {
        let state = self.lock();
        match (&state.login, &state.unreachable) {
            (Some(error), _) => error.clone(),
            (None, Some(why)) => self.unreachable_error(why),
            (None, None) => self.unreachable_error("no answer in time"),
        }
    }

    /// An error of TLS. `refused` is what was last heard of a certificate.
    fn tls_error(&self, text: &str, refused: Option<Refused>) -> KafkaError {
        let begin = format!("cannot connect to Kafka \"{}\": TLS", self.bootstrap);
        if !text.contains("certificate verify failed") {
            return KafkaError::NoTls(format!(
                "{begin}: {}; see that this port speaks TLS and wants no certificate of its \
                 clients, or set kafka.security to plaintext or sasl-plaintext",
                cause(text)
            ));
        }
        // What is wrong with a certificate that signed another one, another CA can mend.
        let own = refused.filter(|why| why.depth == 0).map(|why| why.code);
        let why = match (own, refused.map(|why| why.code)) {
            (Some(x509::NOT_YET_VALID | x509::EXPIRED), _) => {
                return KafkaError::Certificate(format!(
                    "{begin}: the broker's certificate has expired or is not valid yet; renew it, \
                     or set this machine's clock by NTP"
                ));
            }
            (Some(x509::OTHER_HOST | x509::OTHER_ADDRESS), _) => {
                return KafkaError::Certificate(format!(
                    "{begin}: the certificate is another host's; write names that it has in \
                     kafka.bootstrap and in the brokers' advertised.listeners, or give the brokers \
                     certificates for theirs"
                ));
            }
            (_, Some(x509::EXPIRED)) => "the CA of the broker's certificate has expired",
            _ => "the broker's certificate is not trusted",
        };
        KafkaError::Tls(format!(
            "{begin}: {why}; give the CA that signed its certificate, in kafka.ca-file"
        ))
    }

    fn login_error(&self, code: i32, text: &str, refused: Option<Refused>) -> KafkaError {
        let cause = cause(text);
        if code == code::SSL {
            return self.tls_error(text, refused);
        }
        // librdkafka has one code for all that ends a login; the texts are its own. A connection
        // that is lost in the middle says nothing about the login.
        let has = |part: &str| text.contains(part);
        if has("Unsupported SASL mechanism") || has("Request not valid in current SASL state") {
            return KafkaError::Mechanism(format!(
                "cannot log in to Kafka \"{}\": {cause}; set kafka.mechanism to one that it takes, \
                 or kafka.security to what this port speaks",
                self.bootstrap
            ));
        }
        if has("mechanism handshake failed: Local: ") {
            return self.unreachable_error(text);
        }
        KafkaError::Login(format!(
            "cannot log in to Kafka \"{}\" as user \"{}\": {cause}; give the current user name \
             and password",
            self.bootstrap, self.username
        ))
    }

    /// A port that has hung up again and again.
    fn hung_up_error(&self, wants: Option<Wants>) -> KafkaError {
        let bootstrap = &self.bootstrap;
        match wants {
            Some(Wants::NoTls) => KafkaError::NoTls(format!(
                "cannot connect to Kafka \"{bootstrap}\": it hangs up in the handshake of TLS, as \
                 a port does that speaks none; set kafka.security to plaintext or sasl-plaintext, \
                 or name the port that speaks TLS"
            )),
            _ => KafkaError::Tls(format!(
                "cannot connect to Kafka \"{bootstrap}\": it hangs up at the first request, as a \
                 port does that speaks TLS; set kafka.security to ssl or sasl-ssl, or name the \
                 port that does not"
            )),
        }
    }

    fn unreachable_error(&self, why: &str) -> KafkaError {
        let hint = if why.contains("resolve") {
            "check the host name, or set the Kubernetes namespace that Kafka runs in"
        } else {
            "check that it runs, and address and security protocol"
        };
        KafkaError::Unreachable(format!(
            "cannot reach Kafka \"{}\": {}; {hint}",
            self.bootstrap,
            cause(why)
        ))
    }

    /// librdkafka's error as one of ours. `verb` is what was attempted with the topic, such as
    /// `read`.
    pub(super) fn classify(&self, failure: &Failure, verb: &str) -> KafkaError {
        let text = self.redact(cause(&failure.text));
        let topic = &self.topic;
        match failure.code {
            code::UNKNOWN_TOPIC_OR_PART
            | code::UNKNOWN_TOPIC
            | code::UNKNOWN_PARTITION
            | code::UNKNOWN_TOPIC_ID => KafkaError::NotThere(format!(
                "cannot {verb} topic \"{topic}\": it does not exist; create it, or name another"
            )),
            code::TOPIC_AUTHORIZATION_FAILED | code::CLUSTER_AUTHORIZATION_FAILED => {
                KafkaError::TopicDenied(format!(
                    "cannot {verb} topic \"{topic}\": user \"{}\" may not, or it does not exist; \
                 grant Read and Describe on the topic",
                    self.username
                ))
            }
            code::GROUP_AUTHORIZATION_FAILED => KafkaError::GroupDenied(format!(
                "cannot use group \"{}\": user \"{}\" may not; grant Read on the group",
                self.group, self.username
            )),
            code::AUTHENTICATION | code::SASL_AUTHENTICATION_FAILED | code::SSL => {
                let refused = self.lock().refused;
                self.login_error(failure.code, &self.redact(&failure.text), refused)
            }
            code::BAD_MSG | code::BAD_COMPRESSION | code::NOT_IMPLEMENTED | code::INVALID_MSG => {
                KafkaError::Damaged(format!(
                    "cannot {verb} topic \"{topic}\": {text}; a batch came damaged, or is of an \
                     unknown format; it is asked for again, at least once a minute; if that does \
                     not help, look at the network and at the disks of the brokers"
                ))
            }
            code::MSG_SIZE_TOO_LARGE => KafkaError::Damaged(format!(
                "cannot {verb} topic \"{topic}\": {text}; \
                 a batch is larger than {RESPONSE_MAX_BYTES} bytes, the most that is read; it is \
                 asked for again, at least once a minute"
            )),
            code::FATAL => KafkaError::Fatal(format!(
                "cannot go on with Kafka \"{}\": {text}",
                self.bootstrap
            )),
            code if is_silence(code) || code::PASSING.contains(&code) => {
                KafkaError::Unreachable(format!(
                    "cannot {verb} topic \"{topic}\": {text}; tried again until brokers are back"
                ))
            }
            code => KafkaError::Other(format!(
                "cannot {verb} topic \"{topic}\": {text} (code {code})"
            )),
        }
    }

    /// Takes the password out of a text. Brokers and libraries write these texts, and none of them
    /// is known to quote a password; this makes sure of it.
    pub(super) fn redact(&self, text: &str) -> String {
        let password = self.password.expose();
        if password.is_empty() {
            text.to_owned()
        } else {
            text.replace(password, "…")
        }
    }
}

impl Hooks for ClientErrors {
    fn log(&self, level: i32, facility: &str, text: &str) {
        let text = self.redact(text);
        // The levels are those of syslog. Most of librdkafka's errors are lost connections, which
        // it makes again by itself.
        match level {
            ..=4 => warn!(facility, text, "librdkafka"),
            5..=6 => debug!(facility, text, "librdkafka"),
            _ => trace!(facility, text, "librdkafka"),
        }
    }

    fn error(&self, code: i32, text: &str) {
        let text = self.redact(text);
        let mut state = self.lock();
        match code {
            code::AUTHENTICATION | code::SASL_AUTHENTICATION_FAILED | code::SSL => {
                let error = self.login_error(code, &text, state.refused);
                state.logins_failed += 1;
                state.login = Some(error.clone());
                state.add_news(error);
            }
            code::ALL_BROKERS_DOWN if state.login.is_none() => {
                let why = state.unreachable.clone().unwrap_or(text);
                let error = self.unreachable_error(&why);
                state.add_news(error);
            }
            // When a topic is gone, its topic partitions do not report that in their queues: it
            // comes as an error of the client.
            code::UNKNOWN_TOPIC_OR_PART
            | code::UNKNOWN_PARTITION
            | code::UNKNOWN_TOPIC
            | code::UNKNOWN_TOPIC_ID => {
                let error = self.classify(&Failure { code, text }, "read");
                state.add_news(error);
            }
            code::TRANSPORT if hung_up(&text).is_some() => {
                state.hung_up += 1;
                if state.hung_up == HUNG_UP_MAX {
                    let error = self.hung_up_error(hung_up(&text));
                    state.login = Some(error.clone());
                    state.add_news(error);
                }
                state.unreachable = Some(text);
            }
            code::TRANSPORT | code::RESOLVE => state.unreachable = Some(text),
            // `Client::fatal` tells the cause.
            code::FATAL | code::ALL_BROKERS_DOWN => {}
            _ => debug!(code, text, "librdkafka reported an error"),
        }
        self.any.store(true, Ordering::Release);
    }

    fn refused_certificate(&self, why: Refused) {
        self.lock().refused = Some(why);
    }

    fn names(&self, host: &str) -> Vec<String> {
        (self.names)(host)
    }
}

/// The cause alone, without the name of librdkafka's thread and without the time it took: with
/// these every text would be a new one. Example: of `sasl_plaintext://host:9092/bootstrap: Connect
/// failed (after 3ms in state CONNECT)` it is `Connect failed`.
pub(super) fn cause(text: &str) -> &str {
    let text = match text.split_once("://") {
        Some((protocol, rest)) if !protocol.contains(' ') => {
            rest.split_once(": ").map_or(text, |(_, cause)| cause)
        }
        _ => text,
    };
    match text.rsplit_once(" (after ") {
        Some((cause, after)) if after.contains("ms in state ") => cause,
        _ => text,
    }
}

/// What a port wants that has hung up, in librdkafka's opinion.
enum Wants {
    Tls,
    NoTls,
}

/// What the port wants, where this is librdkafka's text of a port that has hung up.
fn hung_up(text: &str) -> Option<Wants> {
    if text.contains("(connecting to a SSL listener?)") {
        Some(Wants::Tls)
    } else if text.contains("connecting to a PLAINTEXT broker listener?") {
        Some(Wants::NoTls)
    } else {
        None
    }
}

/// OpenSSL's reasons to refuse a certificate that are told apart: `X509_V_ERR_...` of its
/// `x509_vfy.h`.
mod x509 {
    pub const NOT_YET_VALID: i32 = 9;
    pub const EXPIRED: i32 = 10;
    pub const OTHER_HOST: i32 = 62;
    pub const OTHER_ADDRESS: i32 = 64;
}

/// The codes of `rd_kafka_resp_err_t`. Those of librdkafka itself are negative, and those of
/// brokers are positive.
pub(super) mod code {
    pub const BAD_MSG: i32 = -199;
    pub const BAD_COMPRESSION: i32 = -198;
    pub const TRANSPORT: i32 = -195;
    pub const RESOLVE: i32 = -193;
    pub const PARTITION_EOF: i32 = -191;
    pub const UNKNOWN_PARTITION: i32 = -190;
    pub const UNKNOWN_TOPIC: i32 = -188;
    pub const ALL_BROKERS_DOWN: i32 = -187;
    pub const TIMED_OUT: i32 = -185;
    pub const SSL: i32 = -181;
    pub const PREV_IN_PROGRESS: i32 = -177;
    pub const STATE: i32 = -172;
    pub const NOT_IMPLEMENTED: i32 = -170;
    pub const AUTHENTICATION: i32 = -169;
    pub const TIMED_OUT_QUEUE: i32 = -166;
    pub const NO_LEADER: i32 = -156;
    pub const FATAL: i32 = -150;
    pub const AUTO_OFFSET_RESET: i32 = -140;
    pub const INVALID_MSG: i32 = 2;
    pub const UNKNOWN_TOPIC_OR_PART: i32 = 3;
    pub const MSG_SIZE_TOO_LARGE: i32 = 10;
    pub const TOPIC_AUTHORIZATION_FAILED: i32 = 29;
    pub const GROUP_AUTHORIZATION_FAILED: i32 = 30;
    pub const CLUSTER_AUTHORIZATION_FAILED: i32 = 31;
    pub const SASL_AUTHENTICATION_FAILED: i32 = 58;
    pub const UNKNOWN_TOPIC_ID: i32 = 100;
    /// Errors that pass by themselves: there is no leader, or another one; a broker or a
    /// coordinator is starting or gone.
    pub const PASSING: [i32; 16] = [
        NO_LEADER, -195, -193, -187, -180, 5, 6, 7, 8, 9, 13, 14, 15, 16, 74, 75,
    ];
}

/// Whether the code means that no answer came.
pub(super) fn is_silence(code: i32) -> bool {
    matches!(
        code,
        code::TIMED_OUT
            | code::TIMED_OUT_QUEUE
            | code::TRANSPORT
            | code::ALL_BROKERS_DOWN
            | code::RESOLVE
    )
}

/// Whether the code means that an earlier stop has not come to its end, so that a start has not
/// begun.
pub(super) fn is_too_early(code: i32) -> bool {
    matches!(
        code,
        code::STATE | code::PREV_IN_PROGRESS | code::UNKNOWN_PARTITION
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors() -> ClientErrors {
        let settings = "kafka: { bootstrap: 'k:9092', topic: clicks }";
        let settings = windrow_core::settings::config::Config::parse(settings).unwrap();
        let config = KafkaConfig {
            settings: settings.kafka,
            topic: "clicks".to_owned(),
            username: "me".to_owned(),
            password: Secret::new("hunter2"),
            group: "windrow-a.b".to_owned(),
            ca_pem: None,
            fetched_bytes: 32 << 20,
            partitions: 0,
        };
        ClientErrors::new(&config, Box::new(|host| vec![host.to_owned()]))
    }

    #[test]
    fn each_refusal_of_kafka_has_its_cause() {
        let login = Some(Cause::LoginKafka);
        let (rights, topic) = (Some(Cause::KafkaRights), Some(Cause::NoTopic));
        for (code, cause, part) in [
            (29, rights, "grant Read and Describe on the topic"),
            (30, rights, "grant Read on the group"),
            (31, rights, "user \"me\""),
            (3, topic, "create it, or name another"),
            (100, topic, "does not exist"),
            (code::UNKNOWN_TOPIC, topic, "does not exist"),
            (code::UNKNOWN_PARTITION, topic, "does not exist"),
            (58, login, "give the current user name and password"),
            (code::AUTHENTICATION, login, "as user \"me\""),
            (
                code::SSL,
                Some(Cause::NoTlsKafka),
                "see that this port speaks TLS",
            ),
            (code::TRANSPORT, None, "tried again until brokers are back"),
            (code::TIMED_OUT, None, "tried again"),
            (5, None, "tried again"),
            (code::BAD_MSG, None, "damaged"),
            (code::FATAL, None, "cannot go on"),
            (42, None, "(code 42)"),
        ] {
            let text = "ssl://k:9093/1: it says hunter2 (after 3ms in state CONNECT)".to_owned();
            let error = errors().classify(&Failure { code, text }, "read");
            let trouble = Trouble::from(error);
            assert_eq!(trouble.cause, cause, "{code}: {trouble}");
            assert!(trouble.text.contains(part), "{code}: {trouble}");
            assert!(!trouble.text.contains("hunter2"), "{trouble}");
        }
    }

    #[test]
    fn a_certificate_that_no_ca_can_mend_is_told_apart() {
        let text = "ssl://k:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::\
                    certificate verify failed: broker certificate could not be verified, verify \
                    that ssl.ca.location is correctly configured or root CA certificates are \
                    installed (after 1ms in state SSL_HANDSHAKE)";
        for (why, cause, part) in [
            (Some((10, 0)), Cause::CertificateKafka, "has expired"),
            (Some((9, 0)), Cause::CertificateKafka, "renew it"),
            (Some((62, 0)), Cause::CertificateKafka, "another host's"),
            (Some((64, 0)), Cause::CertificateKafka, "another host's"),
            (Some((10, 1)), Cause::TlsKafka, "the CA of"),
            (Some((18, 0)), Cause::TlsKafka, "not trusted; give the CA"),
            (None, Cause::TlsKafka, "not trusted; give the CA"),
        ] {
            let errors = errors();
            if let Some((code, depth)) = why {
                errors.refused_certificate(Refused { code, depth });
            }
            errors.error(code::SSL, text);
            let trouble = Trouble::from(errors.explain_silence());
            assert_eq!(trouble.cause, Some(cause), "{why:?}: {trouble}");
            assert!(trouble.text.contains(part), "{why:?}: {trouble}");
        }
    }

    #[test]
    fn another_mechanism_is_no_wrong_password() {
        let text = "sasl_plaintext://k:9092/bootstrap: SASL PLAIN mechanism handshake failed: \
                    Broker: Unsupported SASL mechanism: broker's supported mechanisms: \
                    SCRAM-SHA-512 (after 3ms in state AUTH_HANDSHAKE)";
        let code = code::AUTHENTICATION;
        let text = text.to_owned();
        let classified = errors().classify(
            &Failure {
                code,
                text: text.clone(),
            },
            "read",
        );
        let errors = errors();
        errors.error(code, &text);
        for error in [classified, errors.explain_silence()] {
            let trouble = Trouble::from(error);
            assert_eq!(trouble.cause, Some(Cause::KafkaMechanism), "{trouble}");
            assert!(
                trouble.text.contains("SCRAM-SHA-512; set kafka.mechanism"),
                "{trouble}"
            );
        }
    }

    #[test]
    fn a_broker_that_stops_during_the_login_is_away() {
        let text = "sasl_plaintext://k:9092/1: SASL PLAIN mechanism handshake failed: Local: \
                    Broker transport failure: broker's supported mechanisms:  (after 3ms in state \
                    AUTH_HANDSHAKE)";
        let (code, text) = (code::AUTHENTICATION, text.to_owned());
        let error = errors().classify(&Failure { code, text }, "read");
        assert!(matches!(error, KafkaError::Unreachable(_)), "{error}");
    }

    #[test]
    fn a_port_that_hangs_up_again_and_again_wants_tls_or_has_none() {
        let at_request = "k:9093/bootstrap: Disconnected: requesting ApiVersion: might be caused \
                          by incorrect security.protocol configuration (connecting to a SSL \
                          listener?) or broker version is < 0.10 (see api.version.request)";
        let in_handshake = "ssl://k:9092/bootstrap: SSL handshake failed: Disconnected: connecting \
                            to a PLAINTEXT broker listener? (after 1ms in state SSL_HANDSHAKE)";
        for (hung_up, cause, step) in [
            (at_request, Cause::TlsKafka, "set kafka.security to ssl"),
            (
                in_handshake,
                Cause::NoTlsKafka,
                "set kafka.security to plaintext",
            ),
        ] {
            let errors = errors();
            for _ in 1..HUNG_UP_MAX {
                errors.error(code::TRANSPORT, hung_up);
            }
            assert_eq!(errors.take_news(), []);
            errors.clear();
            for _ in 1..HUNG_UP_MAX {
                errors.error(code::TRANSPORT, hung_up);
            }
            assert!(matches!(
                errors.explain_silence(),
                KafkaError::Unreachable(_)
            ));
            errors.error(code::TRANSPORT, hung_up);
            let [error] = &errors.take_news()[..] else {
                panic!("one of them is news");
            };
            assert_eq!(Trouble::from(error.clone()).cause, Some(cause));
            assert!(error.to_string().contains(step), "{error}");
            errors.clear();
            assert!(!errors.cannot_log_in());
        }
    }
}
