//! `snapshots diff`: what came between two snapshots, by table and in words.

use serde_json::{Value, json};

use crate::support::{cut, grow, growing_site, run};

#[tokio::test(flavor = "multi_thread")]
async fn the_difference_of_two_snapshots_tells_rows_by_table_and_whether_the_schema_changed() {
    let site = growing_site(400, 249).await;
    let pool = site.database.pool().await;
    let service = site.serve().await;
    let (first, _) = cut(&service, &pool, json!({})).await;
    grow(&pool, 399).await;
    let (second, _) = cut(&service, &pool, json!({})).await;
    sqlx::raw_sql("create index an_index on public.events (block_height, type)").execute(&pool).await.unwrap();
    let (third, _) = cut(&service, &pool, json!({})).await;
    let diff = async |from: &str, to: &str, flags: &[&str]| {
        let mut command = site.command();
        command.env("SNAPSHOTS_URL", &service.url).args(["diff", from, to]).args(flags);
        run(&mut command).await
    };
    let [one, two, three] = [&first, &second, &third].map(|manifest| manifest.snapshot_id.as_str());

    let grown = diff(one, two, &["--json"]).await.result();
    assert_eq!((&grown["schemaChanged"], &grown["heights"][0]["to"]), (&json!(false), &json!(399)), "{grown:#}");
    let words = diff(one, two, &[]).await.stdout;
    for name in ["blocks", "transactions", "events"] {
        let tables = grown["tables"].as_array().unwrap();
        let table = tables.iter().find(|table| table["table"] == name).unwrap();
        let (before, after) = (first.tables[name].rows, second.tables[name].rows);
        assert!(before < after, "{name}");
        assert_eq!((&table["rowsFrom"], &table["rowsTo"]), (&json!(before), &json!(after)));
        let line = words.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{name}: {words}"));
        assert!(line.contains(&format!("+{} rows", after - before)), "{line}");
    }
    assert!(words.contains("at height 249 → ") && !words.contains("schema"), "{words}");

    let altered = diff(two, three, &["--json"]).await.result();
    let changed: (&Value, &Value) = (&altered["schemaChanged"], &altered["heights"]);
    assert_eq!(changed, (&json!(true), &json!([])), "{altered:#}");
    let words = diff(two, three, &[]).await.stdout;
    assert!(words.contains("the schema section differs"), "{words}");
    diff(one, "1999-01-01", &["--json"]).await.error_with(4, &["1999-01-01"]);
}
