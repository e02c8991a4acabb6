//! `metastore-db`, interface postgresql_client: the database of Hive's metastore, and what its
//! charm is asked for.

use super::{Endpoint, Fault, certificates, field, is_yes, parse_addresses, plain};
use crate::facts::{Bag, METASTORE, Relation};
use windrow_core::settings::certificates::Certificates;
use windrow_core::settings::config::Secret;
use windrow_core::settings::parse::join_addresses;

/// What PostgreSQL's charm gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metastore {
    /// `host:port` of the primary.
    pub endpoint: String,
    /// The name of the database.
    pub database: String,
    /// Whether the server speaks TLS.
    pub tls: bool,
    /// The certificates that the server's is signed by.
    pub ca: Certificates,
    /// PostgreSQL's major version, such as 14; `None` where the charm does not say it.
    pub version: Option<u32>,
    /// The user.
    pub username: Secret,
    /// The user's password.
    pub password: Secret,
}

impl Metastore {
    /// The setting `catalog`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgresql://{}/{}", self.endpoint, self.database)
    }
}

/// What we ask for. Roles are asked for only where the operator wants them: PostgreSQL 14 needs
/// them for tables that others create later, and PostgreSQL 16 refuses the same ones.
#[must_use]
pub fn request(database: &str, roles: &str) -> Bag {
    let mut request = Bag::from([
        ("database".to_owned(), database.to_owned()),
        (
            "requested-secrets".to_owned(),
            r#"["username","password","tls","tls-ca","uris"]"#.to_owned(),
        ),
    ]);
    if !roles.is_empty() {
        request.insert("extra-user-roles".to_owned(), roles.to_owned());
    }
    request
}

/// What the relation gives. `asked` is the database that was asked for; the answer may name
/// another.
#[must_use]
pub fn read(relation: Option<&Relation>, asked: &str) -> Endpoint<Metastore> {
    let Some(relation) = relation else {
        return Endpoint::Absent;
    };
    Endpoint::from_result(parse(relation, asked), METASTORE, &relation.app)
}

fn parse(relation: &Relation, asked: &str) -> Result<Metastore, Fault> {
    let user = |name| field(relation, "secret-user", name);
    let (username, password) = (user("username")?, user("password")?);
    let endpoints = plain(relation, "secret-user", "endpoints")?;
    let (Some(username), Some(password), Some(endpoints)) = (username, password, endpoints) else {
        return Err(Fault::Later(format!(
            "{} has not given endpoints and a user yet",
            relation.app
        )));
    };
    let ca = field(relation, "secret-tls", "tls-ca")?;
    let version = plain(relation, "", "version").ok().flatten();
    Ok(Metastore {
        endpoint: join_addresses(&parse_addresses(&endpoints)?[..1]),
        database: plain(relation, "", "database")?.unwrap_or_else(|| asked.to_owned()),
        tls: is_yes(plain(relation, "secret-tls", "tls")?.as_deref()),
        ca: certificates(ca.as_ref()),
        version: version.and_then(|text| text.trim().split('.').next()?.parse().ok()),
        username,
        password,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::relation;

    #[test]
    fn postgresql_14_and_16_are_read() {
        let pairs = [
            ("secret-user/username", "relation_id_9"),
            ("secret-user/password", "pw"),
            (
                "secret-user/uris",
                "postgresql://relation_id_9:pw@metastore-primary.spark.svc.cluster.local:5432/hm",
            ),
            ("secret-tls/tls", "False"),
            (
                "endpoints",
                "metastore-primary.spark.svc.cluster.local:5432",
            ),
            ("database", "hivemetastore"),
        ];
        let Endpoint::Ready(metastore) = read(Some(&relation(METASTORE, &pairs)), "asked") else {
            panic!()
        };
        assert_eq!(
            metastore.endpoint,
            "metastore-primary.spark.svc.cluster.local:5432"
        );
        assert!(!metastore.tls && metastore.database == "hivemetastore");

        // Revision 281 sends no `tls` and no secrets.
        let old = [
            ("username", "u"),
            ("password", "p"),
            ("endpoints", "h:5432"),
        ];
        let Endpoint::Ready(metastore) = read(Some(&relation(METASTORE, &old)), "asked") else {
            panic!()
        };
        assert!(!metastore.tls && metastore.database == "asked");
    }

    #[test]
    fn roles_are_asked_for_only_where_they_are_set() {
        assert!(!request("hivemetastore", "").contains_key("extra-user-roles"));
        assert_eq!(request("hivemetastore", "a,b")["extra-user-roles"], "a,b");
    }
}
