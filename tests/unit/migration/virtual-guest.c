/*
 * A guest and a link in virtual time, to try policies of convergence on
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include <math.h>
#include "virtual-guest.h"

#define REST VIRTUAL_SETS
#define PAGE 4096.0
/* Of the guest's downtime: stopping, devices, starting */
#define FIXED_DOWNTIME 0.01
#define STEP_MIN 0.002
#define STEP_MAX 0.1

void virtual_begin(VirtualGuest *g, const Workload *load)
{
    *g = (VirtualGuest) {
        .load = load, .keep = 1, .link_now = load->link,
        .rand = g_rand_new_with_seed(load->seed),
    };
    g->known[REST] = load->memory;
    for (int i = 0; i < VIRTUAL_SETS; i++) {
        g->known[i] = load->set[i].size;
        g->known[REST] -= load->set[i].size;
    }
    g->known[REST] = MAX(g->known[REST], 0);
}

void virtual_end(VirtualGuest *g)
{
    g_rand_free(g->rand);
}

double virtual_remaining(const VirtualGuest *g)
{
    double sum = 0;

    for (int i = 0; i <= REST; i++) {
        sum += g->known[i];
    }
    return sum;
}

double virtual_step(const VirtualGuest *g)
{
    double pass = virtual_remaining(g) / g->load->link;

    return CLAMP(pass / 30, STEP_MIN, STEP_MAX);
}

/* Once a second of virtual time, what is random is drawn anew. */
static void draw(VirtualGuest *g)
{
    if (g->now < g->noise_until) {
        return;
    }
    g->noise_until = floor(g->now) + 1;
    g->noise = g_rand_double_range(g->rand, 0.2, 1.8);
    g->link_now = g->load->link *
                  (1 + g->load->link_noise * g_rand_double_range(g->rand, -1,
                                                                 1));
}

static double rate_now(const VirtualGuest *g, int i)
{
    const Workload *w = g->load;
    double rate = w->set[i].rate;

    switch (w->rhythm) {
    case RHYTHM_BURSTS:
        return fmod(g->now, w->period) < w->on ? rate : 0;
    case RHYTHM_TURNS:
        return (int)(g->now / w->period) % VIRTUAL_SETS == i ? rate : 0;
    case RHYTHM_NOISE:
        return rate * g->noise;
    default:
        return rate;
    }
}

/* For how long vCPUs have run by the time @at, had they had @keep all along */
static double ran(const VirtualGuest *g, double at)
{
    double period = g->load->slice / g->keep;

    return floor(at / period) * g->load->slice +
           MIN(fmod(at, period), g->load->slice);
}

/* The share of the next @seconds in which vCPUs run */
static double awake(const VirtualGuest *g, double seconds)
{
    if (!g->load->slice || g->keep == 1 || !seconds) {
        return g->keep;
    }
    return (ran(g, g->now + seconds) - ran(g, g->now)) / seconds;
}

/* What set @i is written to in @seconds, with what was put off before */
static double written(VirtualGuest *g, int i, double seconds)
{
    double demand = rate_now(g, i) * seconds, can;
    double share = awake(g, seconds);

    if (!g->load->catch_up) {
        return demand * share;
    }
    can = g->load->catch_up * g->load->set[i].rate * share * seconds;
    demand += g->backlog[i];
    g->backlog[i] = MAX(demand - can, 0);
    return MIN(demand, can);
}

static void dirty(VirtualGuest *g, double seconds)
{
    for (int i = 0; i < VIRTUAL_SETS; i++) {
        double size = g->load->set[i].size;

        if (size) {
            double clean = size - g->unknown[i];

            clean *= exp(-written(g, i, seconds) / size);
            g->unknown[i] = size - clean;
        }
    }
}

/* In the order of addresses. */
static double transmit(VirtualGuest *g, double seconds)
{
    double cost = g->again && g->load->delta ? g->load->delta : 1;
    double may = g->link_now * seconds / cost, sent = 0;

    for (int i = REST; i >= 0; i--) {
        double piece = MIN(g->known[i], may - sent);

        g->known[i] -= piece;
        sent += piece;
    }
    g->sent += sent * cost;
    return sent * cost;
}

double virtual_run(VirtualGuest *g, double seconds)
{
    double sent;

    draw(g);
    dirty(g, seconds);
    sent = transmit(g, seconds);
    g->now += seconds;
    if (!g->load->catch_up) {
        g->lost += (1 - g->keep) * seconds;
    }
    return sent;
}

void virtual_idle(VirtualGuest *g, double seconds)
{
    draw(g);
    dirty(g, seconds);
    g->now += seconds;
}

void virtual_sync(VirtualGuest *g)
{
    g->found = 0;
    for (int i = 0; i < VIRTUAL_SETS; i++) {
        double size = g->load->set[i].size;

        g->unknown[i] = floor(g->unknown[i] / PAGE) * PAGE;
        g->found += g->unknown[i];
        if (size) {
            g->known[i] += g->unknown[i] * (1 - g->known[i] / size);
        }
        g->unknown[i] = 0;
    }
    g->interval = g->now - g->synced_at;
    g->longest_pass = MAX(g->longest_pass, g->interval);
    g->synced_at = g->now;
    g->again = true;
    dirty(g, g->load->latency);
    g->now += g->load->latency;
}

Outcome virtual_switch_over(VirtualGuest *g)
{
    double cost = g->again && g->load->delta ? g->load->delta : 1;
    double rest;
    Outcome o = { .done = true };

    virtual_sync(g);
    rest = virtual_remaining(g) * cost;
    g->sent += rest;
    o.downtime = rest / g->link_now + g->load->latency + FIXED_DOWNTIME;
    o.total = g->now + o.downtime;
    o.lost = g->lost;
    if (g->load->catch_up) {
        for (int i = 0; i < VIRTUAL_SETS; i++) {
            o.lost += g->load->set[i].rate ? g->backlog[i] /
                                             g->load->set[i].rate : 0;
        }
    }
    o.sent = g->sent;
    o.longest_pass = g->longest_pass;
    return o;
}
