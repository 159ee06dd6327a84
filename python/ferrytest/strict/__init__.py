# Switchovers under a strict downtime: planned, done and judged.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""Switchovers under a strict downtime: planned, done and judged."""
