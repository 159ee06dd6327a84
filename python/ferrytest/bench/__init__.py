# The paired benchmark: QEMU with Ferry against pristine QEMU.
#
# SPDX-License-Identifier: GPL-2.0-or-later
"""The paired benchmark: QEMU with Ferry against pristine QEMU.

stats     medians, spreads, ratios
cases     what is measured, and how much memory it needs
machine   the machine: description, idle or not, CPU clocks
native    the two helpers in C
run       one migration, measured and verified
report    table, JSON, comparison of two results
chart     the SVG

stats, cases, report and chart need neither QEMU nor root.
"""
