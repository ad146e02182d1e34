# SPDX-License-Identifier: GPL-2.0
"""The agent of a host, which many hosts are asked by: NATS with JetStream between them."""
