//! One test body, every broker: only the URL that the nodes are given differs.

/// Makes a test of each of these functions on each of these brokers: `kafka::NAME` calls `NAME(Broker::Kafka)`.
#[macro_export]
macro_rules! on_brokers {
    ($($module:ident $broker:ident),*: $cases:tt) => { $($crate::on_brokers!(@ $module $broker $cases);)* };
    (@ $module:ident $broker:ident { $($case:ident),* $(,)? }) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() -> anyhow::Result<()> {
                    super::$case($crate::Broker::$broker).await
                }
            )*
        }
    };
}
