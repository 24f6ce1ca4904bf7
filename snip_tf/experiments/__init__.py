"""Networks, data sets, training and the experiments of the paper."""
