//! Who is connected to databases that are about to be renamed or dropped.
//!
//! A role may end sessions of its own and of roles whose member it is, with `pg_signal_backend` those of all but superusers. Others are
//! told, not tried: the server would refuse the whole statement. Autovacuum has no role; the server ends it itself on a rename or drop.

use sqlx::PgConnection;

/// How many sessions a message names.
const NAMED: i64 = 5;

/// Sessions of clients in databases `$1`, and whether this role may end them.
const SESSIONS: &str = "
    select a.pid, a.usename::text as username, a.application_name as application, r.rolsuper as is_super,
           me.rolsuper or not r.rolsuper and (pg_catalog.pg_has_role(a.usesysid, 'usage') or pg_catalog.pg_has_role('pg_signal_backend', 'usage'))
               as may_end
    from pg_catalog.pg_stat_activity a join pg_catalog.pg_roles r on r.oid = a.usesysid
        join pg_catalog.pg_roles me on me.rolname = current_user
    where a.datname = any($1) and a.pid <> pg_catalog.pg_backend_pid()";

/// Ends the sessions that this role may end.
pub(super) async fn end(conn: &mut PgConnection, databases: &[String]) -> sqlx::Result<()> {
    let list = format!("select pid from ({SESSIONS}) s where may_end");
    let pids: Vec<i32> = sqlx::query_scalar(sqlx::AssertSqlSafe(list)).bind(databases).fetch_all(&mut *conn).await?;
    sqlx::query("select pg_catalog.pg_terminate_backend(pid) from unnest($1::int4[]) pid").bind(pids).execute(conn).await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
struct Staying {
    username: String,
    application: String,
    is_super: bool,
    role: String,
}

/// Why the others stay, and what to do about it; `None` if there are none.
pub(super) async fn staying(conn: &mut PgConnection, databases: &[String]) -> sqlx::Result<Option<String>> {
    let list = format!(
        "select distinct username, application, is_super, current_user::text as role from ({SESSIONS}) s
         where not may_end order by is_super, username, application limit {NAMED}"
    );
    let staying: Vec<Staying> = sqlx::query_as(sqlx::AssertSqlSafe(list)).bind(databases).fetch_all(conn).await?;
    Ok(staying.first().map(|first| told(&databases.join(", "), &first.role, &staying)))
}

fn told(databases: &str, role: &str, staying: &[Staying]) -> String {
    let names = staying.iter().map(|one| {
        let kind = if one.is_super { "superuser " } else { "" };
        format!("{kind}{} (application {:?})", one.username, one.application)
    });
    let names = names.collect::<Vec<_>>().join(", ");
    let grant = if staying.iter().any(|one| !one.is_super) {
        format!("end these sessions, or let the role end all but a superuser's: grant pg_signal_backend to {role}")
    } else {
        "end these sessions, since no grant lets it".into()
    };
    format!("connected to {databases} and not to be ended by role {role}: {names}; {grant}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_is_named_and_a_grant_is_asked_for_only_where_it_helps() {
        let one = |username: &str, is_super| Staying {
            username: username.into(),
            application: "psql".into(),
            is_super,
            role: "refresher".into(),
        };
        let said = told("staging", "refresher", &[one("tester", false), one("postgres", true)]);
        assert!(said.contains("tester (application \"psql\"), superuser postgres"), "{said}");
        assert!(said.contains("grant pg_signal_backend to refresher"), "{said}");
        assert!(!told("staging", "refresher", &[one("postgres", true)]).contains("grant pg_"));
    }
}
