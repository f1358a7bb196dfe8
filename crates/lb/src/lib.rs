//! Pure balancing and health algorithms: endpoint choice, outlier ejection, retry budgets.
