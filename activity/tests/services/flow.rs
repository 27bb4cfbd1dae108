//! From the producer into ClickHouse, through every group.

use crate::in_world;
use crate::support::groups;

#[test]
fn every_event_goes_through_every_group_exactly_once() {
    in_world("every_event", 4, |world| async move {
        let published = world.simulate_events(20_000, 1).await;
        assert_eq!(published.counts.acknowledged, 20_000);
        let _consumer = world.consume(&[], &[]);
        world.caught_up(&[]).await;
        for report in world.verified(&[]).await {
            assert_eq!(
                (report.dead_letters, report.lost, report.lag),
                (0, 0, 0),
                "{report:#?}"
            );
            assert!(report.events > 0, "{report:#?}");
        }
        assert_eq!(world.number("SELECT toInt64((SELECT count() FROM {database}.clicks) + (SELECT count() FROM {database}.watches)) AS number").await, 20_000);
        assert_eq!(
            world
                .number("SELECT toInt64(count()) AS number FROM {database}.truth")
                .await,
            20_000
        );
        let clicks = "SELECT toInt64(count()) AS number FROM {database}.clicks c ANTI JOIN {database}.fraud_scores f ON c.event_id = f.event_id";
        assert_eq!(world.number(clicks).await, 0, "a click without a score");
        assert!(
            world
                .number("SELECT toInt64(count()) AS number FROM {database}.sessions")
                .await
                > 0
        );
    });
}

#[test]
fn a_group_that_comes_later_reads_from_the_start_and_disturbs_nobody() {
    in_world("comes_later", 2, |world| async move {
        world.simulate_events(3_000, 2).await;
        let _early = world.consume(&["analytics"], &[]);
        world.caught_up(&["analytics"]).await;
        let _late = world.consume(&["truth"], &[]);
        world.simulate_events(3_000, 3).await;
        world.caught_up(&["analytics", "truth"]).await;
        let reports = world.verified(&["analytics", "truth"]).await;
        assert!(
            reports.iter().all(|report| report.events == 6_000),
            "{reports:#?}"
        );
    });
}

#[test]
fn two_processes_of_one_group_share_its_partitions_and_hand_them_over() {
    in_world("share_partitions", 4, |world| async move {
        let mut first = world.consume(&["analytics"], &[]);
        world.simulate_events(5_000, 4).await;
        world.caught_up(&["analytics"]).await;
        let _second = world.consume(&["analytics"], &["--batch-age-ms", "100"]);
        world.simulate_events(20_000, 5).await;
        assert_eq!(first.terminate(), Some(0), "{}", first.log());
        world.simulate_events(5_000, 6).await;
        world.caught_up(&["analytics"]).await;
        let reports = world.verified(&["analytics"]).await;
        assert_eq!(reports[0].events, 30_000);
    });
}

#[test]
fn each_group_goes_on_while_another_is_stopped_and_it_catches_up_when_it_returns() {
    in_world("goes_on", 2, |world| async move {
        let mut consumers: Vec<_> = groups(&[])
            .iter()
            .map(|group| (group.name, world.consume(&[group.name], &[])))
            .collect();
        world.simulate_events(2_000, 9).await;
        world.caught_up(&[]).await;
        for (index, group) in groups(&[]).iter().enumerate() {
            let others: Vec<&str> = groups(&[])
                .iter()
                .map(|other| other.name)
                .filter(|name| name != &group.name)
                .collect();
            assert_eq!(
                consumers[index].1.terminate(),
                Some(0),
                "{}",
                consumers[index].1.log()
            );
            world.simulate_events(2_000, 10 + index as u64).await;
            world.caught_up(&others).await;
            let lag: i64 = world.lag(&[group]).await.iter().map(|lag| lag.lag).sum();
            assert!(lag > 0, "{} was stopped, yet has no lag", group.name);
            consumers[index].1 = world.consume(&[group.name], &[]);
        }
        world.caught_up(&[]).await;
        world.verified(&[]).await;
    });
}
