//! What an error of PostgreSQL means to the caller: what kind of trouble it is, and what to do. The
//! SQLSTATE decides (PostgreSQL's documentation, appendix A), and for TLS the TLS library's own
//! kinds of errors.

use rustls::CertificateError;
use std::error::Error;
use std::io;
use tokio_postgres::error::DbError;
use windrow_core::settings::config::CatalogTls;
use windrow_core::table::commit::CatalogError;
use windrow_core::values::cause::{Cause, Trouble, error_chain};

/// Who is connected, or wants to be, and how.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) database: &'a str,
    pub(super) tls: CatalogTls,
}

/// What an error before COMMIT means. Nothing was changed, so most of them are `Retry`. `doing`
/// begins the message.
pub(super) fn meaning(
    error: &tokio_postgres::Error,
    doing: &str,
    login: Login<'_>,
) -> CatalogError {
    let Some(db) = error.as_db_error() else {
        let (cause, what_to_do) = match tls_trouble(error) {
            Some((cause, what_to_do)) => (Some(cause), what_to_do),
            None => (None, "is PostgreSQL up?"),
        };
        let text = format!("{doing}: {}; {what_to_do}", error_chain(error));
        return CatalogError::Retry(Trouble { cause, text });
    };
    let refusal = Refusal::of(db);
    let (code, message) = (refusal.code, refusal.message);
    // These are wrong syntax, unknown columns and types: this program does not know the schema.
    if code.starts_with("42") && !matches!(code, "42501" | "42P01") {
        let why = format!(
            "{doing}: {message} (SQLSTATE {code}); Hive's schema is not one of 2.3, 3.1, 4.0"
        );
        return CatalogError::Stop(why.into());
    }
    let (cause, what_to_do) = refusal.explain(login);
    CatalogError::Retry(Trouble {
        cause,
        text: format!("{doing}: {message} (SQLSTATE {code}); {what_to_do}"),
    })
}

/// What caused an error, the outermost first.
fn sources(error: &dyn Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |error| <dyn Error>::source(*error))
}

/// What to do about an error of TLS; `None` for every other one.
fn tls_trouble(error: &tokio_postgres::Error) -> Option<(Cause, &'static str)> {
    let of_tls = sources(error).find_map(|error| {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        inner.or_else(|| error.downcast_ref::<rustls::Error>())
    });
    if let Some(error) = of_tls {
        return Some(certificate_advice(error));
    }
    // This is the client library's own text for the answer "N" to its question for TLS.
    let says_no = |text: &str| text.contains("server does not support TLS");
    sources(error)
        .any(|error| says_no(&error.to_string()))
        .then_some((
            Cause::NoTlsCatalog,
            "this server has no TLS: switch it on there, or set catalog-tls: disable if the \
             network may see the password",
        ))
}

fn certificate_advice(error: &rustls::Error) -> (Cause, &'static str) {
    let rustls::Error::InvalidCertificate(why) = error else {
        let advice = "the server and windrow found no TLS that both speak; see the server's log";
        return (Cause::NoTlsCatalog, advice);
    };
    match why {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => (
            Cause::CertificateCatalog,
            "renew the server's certificate (no CA in catalog-ca-file can mend that), or set the \
             clock of this machine right",
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            Cause::CertificateCatalog,
            "the certificate is another host's: write a host in catalog that it names, or give \
             the server a certificate for this one (no CA in catalog-ca-file can mend that)",
        ),
        _ => (
            Cause::TlsCatalog,
            "the certificate is not trusted: write the CA that has signed it to the file of \
             catalog-ca-file",
        ),
    }
}

/// What the server itself said.
struct Refusal<'a> {
    code: &'a str,
    /// In whatever language the server is set to.
    message: &'a str,
    /// The function of the server that said it, in no language.
    routine: &'a str,
}

impl<'a> Refusal<'a> {
    fn of(db: &'a DbError) -> Self {
        Self {
            code: db.code().code(),
            message: db.message(),
            routine: db.routine().unwrap_or_default(),
        }
    }

    /// What kind of trouble it is, and what to do.
    fn explain(&self, login: Login<'_>) -> (Option<Cause>, String) {
        let Login { user, database, .. } = login;
        match self.code {
            // This comes at the login. Whether something may be made in a database is asked before.
            "42501" if self.message.contains("for database") => (
                Some(Cause::CatalogRules),
                format!("grant the user \"{user}\" CONNECT on the database \"{database}\""),
            ),
            "42501" => (
                Some(Cause::NoRights),
                format!(
                    "no rights on Hive's tables or windrow's own; \
                     grant the user \"{user}\" pg_read_all_data and pg_write_all_data"
                ),
            ),
            "28P01" => (
                Some(Cause::LoginCatalog),
                format!(
                    "the login of user \"{user}\" was refused; \
                     see catalog-username and catalog-password"
                ),
            ),
            "28000" => self.explain_28000(login),
            "3D000" => (
                None,
                format!(
                    "the database \"{database}\" is not there yet; make it, start what makes it, \
                     or correct the setting catalog"
                ),
            ),
            "3F000" | "42P01" => (
                Some(Cause::NoSchema),
                "a table is missing: Hive schema not there yet, or windrow's journal is gone"
                    .to_owned(),
            ),
            "55000" => (
                Some(Cause::CatalogRules),
                format!(
                    "the database \"{database}\" takes no connections; see its setting \
                     datallowconn"
                ),
            ),
            _ => (None, next_step(self.code).to_owned()),
        }
    }

    /// A login that is refused before a password is looked at.
    fn explain_28000(&self, login: Login<'_>) -> (Option<Cause>, String) {
        let Login { user, tls, .. } = login;
        let by_rules = self.routine == "ClientAuthentication" || self.message.contains("pg_hba");
        if !by_rules {
            let why = format!(
                "there is no user \"{user}\" that may log in; make it with CREATE ROLE ... LOGIN, \
                 or correct catalog-username"
            );
            return (Some(Cause::LoginCatalog), why);
        }
        // The server's rules are those of its file pg_hba.conf. It does not say whether a rule
        // would let the same user in over TLS.
        if tls == CatalogTls::Disable {
            let why = "this server may take connections over TLS only: set \
                       catalog-tls: verify-full; if it is refused all the same, add a line for \
                       this user, host and database to the server's pg_hba.conf";
            return (Some(Cause::TlsCatalog), why.to_owned());
        }
        let why = "add a line for this user, host and database to the server's pg_hba.conf";
        (Some(Cause::CatalogRules), why.to_owned())
    }
}

/// What to do about an error that has no cause of its own.
fn next_step(code: &str) -> &'static str {
    match code {
        "55P03" => "another client holds a lock for a long time",
        "57014" => {
            "a statement took longer than windrow waits for it, or somebody cancelled it; \
             is PostgreSQL short of CPU or disk?"
        }
        "40001" | "40P01" => "another client was in the way",
        "23503" => "a table was dropped meanwhile",
        "23505" => "another client took the same name or id",
        "25006" => "this server takes no writes; is a switch-over under way?",
        "53100" => "make room on PostgreSQL's disk",
        "53300" => {
            "the server has no connection left: end clients that need none, or raise its \
             max_connections"
        }
        "57P03" => "the server is starting or stopping; trying again",
        "57P01" | "57P02" => "the server is being stopped; trying again when it is back",
        _ => "trying again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table of cases")]
    fn each_refusal_has_its_cause_and_a_next_step_that_is_true() {
        let (plain, tls) = (CatalogTls::Disable, CatalogTls::VerifyFull);
        let no_entry = "no pg_hba.conf entry for host \"10.1.2.3\", user \"u\", database \"d\", ";
        let hba = |end: &str| format!("{no_entry}{end}");
        let check = |tls, code, routine, message: &str, cause, part: &str| {
            let refusal = Refusal {
                code,
                message,
                routine,
            };
            let login = Login {
                user: "u",
                database: "d",
                tls,
            };
            let (is, text) = refusal.explain(login);
            assert_eq!(is, cause, "{code} {message}");
            assert!(text.contains(part), "{code}: {text}");
        };
        let (auth, role) = ("ClientAuthentication", "InitializeSessionUserId");
        let (login, tls_cause) = (Some(Cause::LoginCatalog), Some(Cause::TlsCatalog));
        let set_tls = "set catalog-tls: verify-full";
        check(
            plain,
            "28P01",
            "auth_failed",
            "refused",
            login,
            "catalog-password",
        );
        check(
            plain,
            "28000",
            auth,
            &hba("no encryption"),
            tls_cause,
            set_tls,
        );
        // PostgreSQL 13 and earlier, and a server that speaks German.
        check(plain, "28000", auth, &hba("SSL off"), tls_cause, set_tls);
        check(plain, "28000", auth, "kein Eintrag", tls_cause, set_tls);
        check(
            tls,
            "28000",
            auth,
            &hba("SSL encryption"),
            Some(Cause::CatalogRules),
            "pg_hba.conf",
        );
        check(
            plain,
            "28000",
            role,
            "role \"u\" does not exist",
            login,
            "CREATE ROLE",
        );
        check(
            tls,
            "28000",
            role,
            "role \"u\" is not permitted",
            login,
            "LOGIN",
        );
        check(
            plain,
            "3D000",
            "",
            "no such",
            None,
            "database \"d\" is not there yet",
        );
        check(plain, "53300", "", "too many", None, "max_connections");
        check(plain, "57P03", "", "starting up", None, "starting");
        check(
            plain,
            "42501",
            "",
            "denied for database d",
            Some(Cause::CatalogRules),
            "CONNECT on the database",
        );
        check(
            plain,
            "55000",
            "",
            "not accepting connections",
            Some(Cause::CatalogRules),
            "database \"d\" takes no connections; see its setting datallowconn",
        );
        check(
            plain,
            "42501",
            "",
            "denied",
            Some(Cause::NoRights),
            "pg_write_all_data",
        );
        check(
            plain,
            "42P01",
            "",
            "no relation",
            Some(Cause::NoSchema),
            "Hive schema",
        );
        check(plain, "55P03", "", "timeout", None, "holds a lock");
        check(plain, "57014", "", "timeout", None, "took longer than");
        check(plain, "XX000", "", "internal", None, "trying again");
    }

    #[test]
    fn a_certificate_that_is_refused_has_advice_that_helps() {
        for (why, cause, part) in [
            (
                CertificateError::UnknownIssuer,
                Cause::TlsCatalog,
                "write the CA",
            ),
            (
                CertificateError::Expired,
                Cause::CertificateCatalog,
                "renew",
            ),
            (
                CertificateError::NotValidForName,
                Cause::CertificateCatalog,
                "another host's",
            ),
        ] {
            let (is, advice) = certificate_advice(&rustls::Error::InvalidCertificate(why));
            assert_eq!(is, cause, "{advice}");
            assert!(
                advice.contains(part) && advice.contains("catalog-ca-file"),
                "{advice}"
            );
        }
    }
}
