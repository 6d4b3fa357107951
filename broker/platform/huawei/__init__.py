"""Driver for Huawei Cloud PrivateNumber."""
