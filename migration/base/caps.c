/*
 * Which capabilities go together: one table of rules
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/error-report.h"
#include "qapi/error.h"
#include "caps.h"

typedef enum CapVerb {
    NEEDS,                      /* the other one as well */
    EXCLUDES,                   /* the other one */
    NEEDS_TRUE,                 /* a condition, whenever it is set */
    NEEDS_TRUE_ONCE,            /* a condition, when it is turned on */
    IS_DEPRECATED,
} CapVerb;

typedef struct CapRule {
    MigrationCapability cap;
    CapVerb verb;
    union {
        MigrationCapability other;
        CapCondition condition;
    };
    const char *why;
} CapRule;

#define RULE(cap_, verb_, other_, why_) \
    { MIGRATION_CAPABILITY_##cap_, verb_, \
      { .other = MIGRATION_CAPABILITY_##other_ }, why_ }
#define CONDITION(cap_, verb_, condition_) \
    { MIGRATION_CAPABILITY_##cap_, verb_, { .condition = CAP_##condition_ } }
#define SNAPSHOT_EXCLUDES(other_) \
    RULE(BACKGROUND_SNAPSHOT, EXCLUDES, other_, \
         "a snapshot is one pass into one stream, from a guest that stays")

#define CHECKPOINT_EXCLUDES(other_, why_) \
    RULE(CHECKPOINT, EXCLUDES, other_, why_)

/* In the order in which they are applied. */
static const CapRule rules[] = {
    { MIGRATION_CAPABILITY_ZERO_BLOCKS, IS_DEPRECATED },
    CONDITION(X_COLO, NEEDS_TRUE, COLO_IS_BUILT),

    CONDITION(POSTCOPY_RAM, NEEDS_TRUE_ONCE, HOST_CAN_POSTCOPY),
    RULE(POSTCOPY_RAM, EXCLUDES, X_IGNORE_SHARED,
         "memory that is not sent cannot be asked for"),

    CONDITION(BACKGROUND_SNAPSHOT, NEEDS_TRUE, HOST_TRACKS_WRITES),
    SNAPSHOT_EXCLUDES(POSTCOPY_RAM),
    SNAPSHOT_EXCLUDES(DIRTY_BITMAPS),
    SNAPSHOT_EXCLUDES(POSTCOPY_BLOCKTIME),
    SNAPSHOT_EXCLUDES(LATE_BLOCK_ACTIVATE),
    SNAPSHOT_EXCLUDES(RETURN_PATH),
    SNAPSHOT_EXCLUDES(MULTIFD),
    SNAPSHOT_EXCLUDES(PAUSE_BEFORE_SWITCHOVER),
    SNAPSHOT_EXCLUDES(AUTO_CONVERGE),
    SNAPSHOT_EXCLUDES(RELEASE_RAM),
    SNAPSHOT_EXCLUDES(RDMA_PIN_ALL),
    SNAPSHOT_EXCLUDES(XBZRLE),
    SNAPSHOT_EXCLUDES(X_COLO),
    SNAPSHOT_EXCLUDES(VALIDATE_UUID),
    SNAPSHOT_EXCLUDES(ZERO_COPY_SEND),
    SNAPSHOT_EXCLUDES(STRICT_DOWNTIME),
    SNAPSHOT_EXCLUDES(CHECKPOINT),

    CONDITION(ZERO_COPY_SEND, NEEDS_TRUE, HOST_SENDS_IN_PLACE),
    RULE(ZERO_COPY_SEND, NEEDS, MULTIFD,
         "the main channel copies what it sends"),
    RULE(ZERO_COPY_SEND, EXCLUDES, XBZRLE,
         "an encoded page is a copy"),
    CONDITION(ZERO_COPY_SEND, NEEDS_TRUE, STREAM_IS_PLAIN),

    RULE(POSTCOPY_PREEMPT, NEEDS, POSTCOPY_RAM,
         "its channel is for pages that were asked for"),
    CONDITION(POSTCOPY_PREEMPT, NEEDS_TRUE_ONCE, INCOMING_NOT_STARTED),
    CONDITION(MULTIFD, NEEDS_TRUE_ONCE, INCOMING_NOT_STARTED),
    RULE(POSTCOPY_AUTO, NEEDS, POSTCOPY_RAM,
         "what it starts by itself has to be possible"),
    RULE(SWITCHOVER_ACK, NEEDS, RETURN_PATH, NULL),
    RULE(STRICT_DOWNTIME, NEEDS, RETURN_PATH,
         "the other side has to say when it could start the guest"),
    RULE(STRICT_DOWNTIME, EXCLUDES, X_IGNORE_SHARED,
         "its reset of devices could write to memory that the guest uses"),
    RULE(STRICT_DOWNTIME, EXCLUDES, X_COLO,
         "its guest runs on both sides"),

    RULE(CHECKPOINT, NEEDS, RETURN_PATH,
         "the other side has to acknowledge each epoch"),
    CHECKPOINT_EXCLUDES(POSTCOPY_RAM, "the guest stays on the source"),
    CHECKPOINT_EXCLUDES(MULTIFD, "an epoch is sent as a whole on one channel"),
    CHECKPOINT_EXCLUDES(MAPPED_RAM, "a file cannot acknowledge an epoch"),
    CHECKPOINT_EXCLUDES(X_IGNORE_SHARED,
                        "memory that is shared has no earlier state"),
    CHECKPOINT_EXCLUDES(DIRTY_BITMAPS, "they are sent once"),
    CHECKPOINT_EXCLUDES(STRICT_DOWNTIME, "there is no switchover"),
    CHECKPOINT_EXCLUDES(PAUSE_BEFORE_SWITCHOVER, "there is no switchover"),
    CHECKPOINT_EXCLUDES(X_COLO, "its guest runs on both sides"),

    RULE(DIRTY_LIMIT, EXCLUDES, AUTO_CONVERGE,
         "choose one of the two ways to slow the guest down"),
    CONDITION(DIRTY_LIMIT, NEEDS_TRUE, DIRTY_RING),

    RULE(MULTIFD, EXCLUDES, XBZRLE,
         "its channels send whole pages"),
    RULE(MAPPED_RAM, EXCLUDES, XBZRLE,
         "each page has its fixed place in the file"),
    RULE(MAPPED_RAM, EXCLUDES, POSTCOPY_PREEMPT,
         "pages are read from a file by threads, there is no second channel"),
};

/* They can be turned off, as management tools do, but not on. */
static const struct {
    MigrationCapability cap;
    const char *instead;
} caps_missing[] = {
    { MIGRATION_CAPABILITY_X_COLO, ": capability 'checkpoint' keeps a second "
      "host able to take the guest over" },
};

bool caps_available(const bool *wanted, Error **errp)
{
    for (int i = 0; i < ARRAY_SIZE(caps_missing); i++) {
        if (wanted[caps_missing[i].cap]) {
            error_setg(errp,
                       "Capability '%s' is not available yet in this "
                       "version of Ferry%s",
                       MigrationCapability_str(caps_missing[i].cap),
                       caps_missing[i].instead);
            return false;
        }
    }
    return true;
}

bool caps_apply_to_snapshots(MigrationCapability cap)
{
    switch (cap) {
    case MIGRATION_CAPABILITY_DIRTY_BITMAPS:
    case MIGRATION_CAPABILITY_EVENTS:
    case MIGRATION_CAPABILITY_VALIDATE_UUID:
        return true;
    default:
        return false;
    }
}

static bool broken(const CapRule *rule, Error **errp)
{
    error_setg(errp, "Capability '%s' %s capability '%s'%s%s",
               MigrationCapability_str(rule->cap),
               rule->verb == NEEDS ? "requires" : "is not compatible with",
               MigrationCapability_str(rule->other),
               rule->why ? ": " : "", rule->why ?: "");
    return false;
}

static bool keeps(const CapRule *rule, const bool *old, const bool *new,
                  const MigrationParameters *params, CapHolds *holds,
                  Error **errp)
{
    switch (rule->verb) {
    case NEEDS:
        return new[rule->other] || broken(rule, errp);
    case EXCLUDES:
        return !new[rule->other] || broken(rule, errp);
    case NEEDS_TRUE:
        return holds(rule->cap, rule->condition, params, errp);
    case NEEDS_TRUE_ONCE:
        return old[rule->cap] ||
               holds(rule->cap, rule->condition, params, errp);
    case IS_DEPRECATED:
        warn_report("%s capability is deprecated",
                    MigrationCapability_str(rule->cap));
        return true;
    default:
        g_assert_not_reached();
    }
}

bool caps_check(const bool *old, const bool *new,
                const MigrationParameters *params, CapHolds *holds,
                Error **errp)
{
    for (int i = 0; i < ARRAY_SIZE(rules); i++) {
        if (new[rules[i].cap] &&
            !keeps(&rules[i], old, new, params, holds, errp)) {
            return false;
        }
    }
    return true;
}

/*
 * As members of parameters
 */

/* Offsets in MigrationCapabilityMembers */
typedef struct CapMember {
    uint16_t has;
    uint16_t at;
} CapMember;

static const CapMember cap_members[] = {
#define CAP(id, field, ...) \
    [MIGRATION_CAPABILITY_##id] = { \
        offsetof(MigrationCapabilityMembers, has_##field), \
        offsetof(MigrationCapabilityMembers, field), \
    },
#include "params.def"
};

/* Each capability has its row, and each member is one. */
QEMU_BUILD_BUG_ON(ARRAY_SIZE(cap_members) != MIGRATION_CAPABILITY__MAX ||
                  sizeof(MigrationCapabilityMembers) !=
                  2 * sizeof(bool) * MIGRATION_CAPABILITY__MAX);

static bool member_bool(const MigrationCapabilityMembers *members, size_t at)
{
    return *(const bool *)((const char *)members + at);
}

static void set_member_bool(MigrationCapabilityMembers *members, size_t at,
                            bool value)
{
    *(bool *)((char *)members + at) = value;
}

bool caps_given(const MigrationCapabilityMembers *members)
{
    for (int cap = 0; cap < MIGRATION_CAPABILITY__MAX; cap++) {
        if (member_bool(members, cap_members[cap].has)) {
            return true;
        }
    }
    return false;
}

void caps_merge(bool *caps, const MigrationCapabilityMembers *members)
{
    for (int cap = 0; cap < MIGRATION_CAPABILITY__MAX; cap++) {
        if (member_bool(members, cap_members[cap].has)) {
            caps[cap] = member_bool(members, cap_members[cap].at);
        }
    }
}

void caps_show(const bool *caps, MigrationCapabilityMembers *members)
{
    for (int cap = 0; cap < MIGRATION_CAPABILITY__MAX; cap++) {
        set_member_bool(members, cap_members[cap].has, true);
        set_member_bool(members, cap_members[cap].at, caps[cap]);
    }
}
