//! Who a client with a ticket is.

use std::sync::Arc;

use super::Worker;
use crate::auth::Refused;
use crate::gate::Identity;

impl Worker {
    /// Redeems a ticket for a client that has no connection yet. It is used up afterwards, unless the refusal is for now.
    pub(crate) async fn redeem(&self, ticket: &str) -> Result<Arc<Identity>, Refused> {
        let shared = &self.shared;
        let _place = self.deciding.place().map_err(|_| Refused::Unavailable)?;
        let claims = shared.cluster.redeem(&shared.log, ticket, shared.clock).await?;
        let identity = shared.auth.of_ticket(&claims, (shared.clock)() / 1000)?;
        self.check_revoked(&identity)?;
        Ok(Arc::new(identity))
    }
}
