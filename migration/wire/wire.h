/*
 * The migration stream on the wire: every number, layout and limit
 *
 * This header describes bytes and nothing else.  The numbers are frozen: they
 * are what QEMU 10.0 sends and accepts, so none of them may be derived from an
 * enumeration or structure that could change with the code.  The same in
 * prose, with diagrams and the order in which records may come, is in
 * docs/devel/migration/wire.rst.
 *
 * All integers are big-endian and unsigned unless a comment says otherwise.
 * The types below say so by their names; use the ld*_be_p() and st*_be_p()
 * functions on them, since records have no alignment.  Offsets are in the
 * comments.  A structure whose length varies ends in a comment that says what
 * follows it.
 *
 * Lengths that come from the peer have a limit of that name, to be checked
 * before anything is allocated or read.  A limit is either what the format
 * can express, or a bound that is generous for honest peers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef MIGRATION_WIRE_WIRE_H
#define MIGRATION_WIRE_WIRE_H

#include "qemu/compiler.h"

typedef uint16_t wire_be16;
typedef uint32_t wire_be32;
typedef uint64_t wire_be64;

#define WIRE_ASSERT_SIZE(type, size) QEMU_BUILD_BUG_ON(sizeof(type) != (size))
#define WIRE_ASSERT_AT(type, member, offset) \
    QEMU_BUILD_BUG_ON(offsetof(type, member) != (offset))

/*
 * 1. Names
 *
 * Names of sections, RAM blocks and capabilities: one byte with the length,
 * then so many bytes, not terminated.
 */

#define WIRE_NAME_MAX                   255

/*
 * 2. Start of the main channel
 */

#define WIRE_FILE_MAGIC                 0x5145564du     /* "QEVM" */
#define WIRE_FILE_VERSION               0x00000003u
#define WIRE_FILE_VERSION_OLD           0x00000002u     /* not supported */

typedef struct WireFileHeader {
    wire_be32 magic;                    /*  0: WIRE_FILE_MAGIC */
    wire_be32 version;                  /*  4: WIRE_FILE_VERSION */
} QEMU_PACKED WireFileHeader;
WIRE_ASSERT_SIZE(WireFileHeader, 8);

/*
 * 3. Records of the main channel
 *
 * The first byte of each record.  A FOOTER follows every section and is not
 * a record of its own; a SUBSECTION only occurs inside of one.
 */

#define WIRE_EOF                        0x00
#define WIRE_SECTION_START              0x01
#define WIRE_SECTION_PART               0x02
#define WIRE_SECTION_END                0x03
#define WIRE_SECTION_FULL               0x04
#define WIRE_SUBSECTION                 0x05
#define WIRE_VMDESCRIPTION              0x06
#define WIRE_CONFIGURATION              0x07
#define WIRE_COMMAND                    0x08
#define WIRE_SECTION_FOOTER             0x7e

/* PART and END: all of the header; START and FULL: its first part. */
typedef struct WireSection {
    uint8_t type;                       /*  0: WIRE_SECTION_* */
    wire_be32 section_id;               /*  1: chosen by the source */
    /* START and FULL: name, WireSectionInstance; then the device's bytes */
} QEMU_PACKED WireSection;
WIRE_ASSERT_SIZE(WireSection, 5);

typedef struct WireSectionInstance {
    wire_be32 instance_id;              /*  0 */
    wire_be32 version_id;               /*  4 */
} QEMU_PACKED WireSectionInstance;
WIRE_ASSERT_SIZE(WireSectionInstance, 8);

/* Since 2.4, unless the machine type or a property turns it off. */
typedef struct WireSectionFooter {
    uint8_t type;                       /*  0: WIRE_SECTION_FOOTER */
    wire_be32 section_id;               /*  1: that of the section */
} QEMU_PACKED WireSectionFooter;
WIRE_ASSERT_SIZE(WireSectionFooter, 5);

typedef struct WireSubsection {
    uint8_t type;                       /*  0: WIRE_SUBSECTION */
    /* name; wire_be32 version_id; fields */
} QEMU_PACKED WireSubsection;
WIRE_ASSERT_SIZE(WireSubsection, 1);

/*
 * Configuration: comes right after the file header, since 2.4.  Subsections
 * follow it, each only when its condition holds.
 */
typedef struct WireConfiguration {
    uint8_t type;                       /*  0: WIRE_CONFIGURATION */
    wire_be32 machine_len;              /*  1: up to WIRE_MACHINE_NAME_MAX */
    /* name of the machine type, without length; subsections */
} QEMU_PACKED WireConfiguration;
WIRE_ASSERT_SIZE(WireConfiguration, 5);

#define WIRE_MACHINE_NAME_MAX           255

/* Target page size, if it differs from the CPU's smallest: wire_be32 bits. */
#define WIRE_CONFIG_PAGE_BITS           "configuration/target-page-bits"
#define WIRE_CONFIG_PAGE_BITS_VERSION   1

/* Capabilities both sides must agree on: wire_be32 count, then the names. */
#define WIRE_CONFIG_CAPS                "configuration/capabilities"
#define WIRE_CONFIG_CAPS_VERSION        1
#define WIRE_CONFIG_CAPS_MAX            256

/* With the capability validate-uuid: 16 bytes as in RFC 4122. */
#define WIRE_CONFIG_UUID                "configuration/uuid"
#define WIRE_CONFIG_UUID_VERSION        1
#define WIRE_UUID_LEN                   16

/*
 * Description of all device state as JSON, after WIRE_EOF, if the machine
 * type does not suppress it.  For people and tools; nothing depends on it.
 */
typedef struct WireVmDescription {
    uint8_t type;                       /*  0: WIRE_VMDESCRIPTION */
    wire_be32 len;                      /*  1: up to WIRE_VMDESCRIPTION_MAX */
    /* JSON text, not terminated */
} QEMU_PACKED WireVmDescription;
WIRE_ASSERT_SIZE(WireVmDescription, 5);

#define WIRE_VMDESCRIPTION_MAX          (64 * 1024 * 1024)

/*
 * 4. Commands: source to destination
 */

typedef struct WireCommand {
    uint8_t type;                       /*  0: WIRE_COMMAND */
    wire_be16 command;                  /*  1: WIRE_CMD_* */
    wire_be16 len;                      /*  3: of what follows */
    /* payload */
} QEMU_PACKED WireCommand;
WIRE_ASSERT_SIZE(WireCommand, 5);

#define WIRE_CMD_PAYLOAD_MAX            65535

#define WIRE_CMD_OPEN_RETURN_PATH       1
#define WIRE_CMD_OPEN_RETURN_PATH_LEN   0

#define WIRE_CMD_PING                   2
#define WIRE_CMD_PING_LEN               4

/* postcopy-ram, or dirty-bitmaps with an empty payload */
#define WIRE_CMD_POSTCOPY_ADVISE        3
#define WIRE_CMD_POSTCOPY_ADVISE_LEN    16

#define WIRE_CMD_POSTCOPY_LISTEN        4
#define WIRE_CMD_POSTCOPY_LISTEN_LEN    0

#define WIRE_CMD_POSTCOPY_RUN           5
#define WIRE_CMD_POSTCOPY_RUN_LEN       0

#define WIRE_CMD_POSTCOPY_DISCARD       6       /* variable */
#define WIRE_CMD_POSTCOPY_DISCARD_MIN   20      /* a 1 byte name, one range */

#define WIRE_CMD_PACKAGED               7
#define WIRE_CMD_PACKAGED_LEN           4

#define WIRE_CMD_ENABLE_COLO            8
#define WIRE_CMD_ENABLE_COLO_LEN        0

#define WIRE_CMD_POSTCOPY_RESUME        9       /* since 3.0 */
#define WIRE_CMD_POSTCOPY_RESUME_LEN    0

#define WIRE_CMD_RECV_BITMAP            10      /* since 3.0; a name */

#define WIRE_CMD_SWITCHOVER_START       11      /* since 10.0 */
#define WIRE_CMD_SWITCHOVER_START_LEN   0

typedef struct WirePing {
    wire_be32 value;                    /*  0: comes back in a PONG */
} QEMU_PACKED WirePing;
WIRE_ASSERT_SIZE(WirePing, WIRE_CMD_PING_LEN);

/*
 * Values of a PING.  The source sends them; a destination answers each with a
 * PONG of the same value, and looks at WIRE_PEER_HELLO and WIRE_PEER_OFFER
 * alone.  Commands are executed in order, so a PONG says that the destination
 * has executed all that was sent before the PING; what follows from that
 * stands here.  No two may overlap: a new one is added to test-wire.c as well.
 *
 * QEMU sends 1 to 4, too.  1: once the return path is open; whatever a peer
 * says of itself has come before the PONG.  2: before the package; 4: after
 * it; these are for traces.  3: in the package, behind the devices, before RUN:
 * they are loaded, and from here on the guest may run on the destination.
 */
#define WIRE_PING_START                 1
#define WIRE_PING_POSTCOPY              2
#define WIRE_PING_DEVICES_LOADED        3
#define WIRE_PING_PACKAGE_SENT          4
/* Once, while nothing else is on the way: the PONG takes a round trip. */
#define WIRE_PING_ROUND_TRIP            0xff
/*
 * Before the guest is stopped, and the number of the attempt added to it: the
 * PONG says that nothing is on the way any more that would delay the rest.
 */
#define WIRE_PING_DRAIN                 0x100
/*
 * In postcopy, after some memory, with a number in the lower bits that wraps
 * around: the PONG says how much of it has been read (postcopy/pace.h).
 */
#define WIRE_PING_PACE                  0x50000000u
#define WIRE_PING_PACE_MASK             0xff000000u
/*
 * The first command of a recovery after which all channels of multifd are
 * connected again, to peers with WIRE_PEER_CHANNELS_AGAIN.  The lower bits are
 * the number of the attempt, not 0, which each of the channels begins with
 * (WireMultifdInit): one that has another number is of an attempt that is over.
 */
#define WIRE_PING_AGAIN                 0x51000000u
#define WIRE_PING_AGAIN_MASK            0xff000000u

/*
 * Peers that know each other.  A source sends WIRE_PEER_HELLO as the value of
 * a PING, and WIRE_PEER_OFFER with its version and the features it understands
 * as that of another.  Every QEMU answers each with a PONG of the same value;
 * one that knows more sends another PONG, whose value is WIRE_PEER_MARK with
 * its own.  What is not known is ignored.
 */
#define WIRE_PEER_HELLO                 0x46455252u     /* "FERR" */
#define WIRE_PEER_OFFER                 0xfd000000u
#define WIRE_PEER_MARK                  0xfe000000u
#define WIRE_PEER_MARK_MASK             0xff000000u
#define WIRE_PEER_VERSION_SHIFT         16
#define WIRE_PEER_VERSION_MASK          0xffu           /* once shifted */
#define WIRE_PEER_FEATURES_MASK         0x0000ffffu

#define WIRE_PEER_ZERO_RANGE            0x0001u /* WIRE_RAM_ZERO_RANGE */
#define WIRE_PEER_PAGE_RUN              0x0002u /* WIRE_RAM_RUN */
#define WIRE_PEER_REPORT                0x0004u /* WIRE_RP_STARTED */
/* 0x0008 was attempts to switch over without WIRE_RP_ABORTED. */
#define WIRE_PEER_URGENT_COPY           0x0010u /* pages on two channels */
#define WIRE_PEER_ERROR                 0x0040u /* WIRE_RP_ERROR */
#define WIRE_PEER_STRICT                0x0100u /* WIRE_CMD_HOLD and so on */
#define WIRE_PEER_CHANNEL_RECORDS       0x0200u /* WIRE_MULTIFD_RECORDS */
/*
 * Each packet of multifd may have another method of NONE, ZLIB and ZSTD,
 * whatever is set on the destination, and what is compressed by Zstandard may
 * consist of several frames.
 */
#define WIRE_PEER_ANY_METHOD            0x0400u
/*
 * In postcopy, WIRE_RAM_MULTIFD_FLUSH on the main channel and in the records of
 * all others has pages follow on these, up to the next such mark.
 */
#define WIRE_PEER_POSTCOPY_CHANNELS     0x0800u
#define WIRE_PEER_INVENTORY             0x1000u /* WIRE_CMD_INVENTORY */
#define WIRE_PEER_CHECKPOINT            0x2000u /* WIRE_CMD_CHECKPOINT */
/*
 * After a break in postcopy the source connects all channels of multifd once
 * more, if they had records when postcopy began and there is none for urgent
 * pages.  Each begins as it did the first time, and goes on with
 * WIRE_MULTIFD_RECORDS.  Both sides know from the introduction before the break
 * that the other one does so, or expects it.
 */
#define WIRE_PEER_CHANNELS_AGAIN        0x4000u
#define WIRE_PEER_CHECKPOINT_DISKS      0x8000u /* WIRE_CMD_CHECKPOINT_DISKS */

typedef struct WirePostcopyAdvise {
    wire_be64 host_page_sizes;          /*  0: all RAM page sizes, or-ed */
    wire_be64 target_page_size;         /*  8 */
} QEMU_PACKED WirePostcopyAdvise;
WIRE_ASSERT_SIZE(WirePostcopyAdvise, WIRE_CMD_POSTCOPY_ADVISE_LEN);

typedef struct WirePostcopyDiscard {
    uint8_t version;                    /*  0: WIRE_POSTCOPY_DISCARD_VERSION */
    /* name of the RAM block, a zero byte, WireRange... */
} QEMU_PACKED WirePostcopyDiscard;
WIRE_ASSERT_SIZE(WirePostcopyDiscard, 1);

#define WIRE_POSTCOPY_DISCARD_VERSION   0
/* QEMU sends no more than 12 per command. */
#define WIRE_POSTCOPY_DISCARD_RANGES_MAX \
    ((WIRE_CMD_PAYLOAD_MAX - 4) / sizeof(WireRange))

typedef struct WireRange {
    wire_be64 start;                    /*  0: bytes from the block's start */
    wire_be64 len;                      /*  8: bytes */
} QEMU_PACKED WireRange;
WIRE_ASSERT_SIZE(WireRange, 16);

/* A stream within the stream, loaded at once: its length precedes it. */
typedef struct WirePackaged {
    wire_be32 len;                      /*  0: up to WIRE_PACKAGED_MAX */
    /* after the command: records, as on the main channel */
} QEMU_PACKED WirePackaged;
WIRE_ASSERT_SIZE(WirePackaged, WIRE_CMD_PACKAGED_LEN);

#define WIRE_PACKAGED_MAX               (1024u * 1024 * 1024)

/*
 * Commands of peers, far from those that a later QEMU may add.  With the
 * feature STRICT: HOLD, RAM, STATE, and then COMMIT, or ABORT and all of it
 * again.  HOLD has the number of the attempt, counted from 1, and all that
 * follow repeat it.
 */
#define WIRE_CMD_PEER_FIRST             0x4600

#define WIRE_CMD_HOLD                   0x4600  /* what comes is an attempt */
#define WIRE_CMD_HOLD_LEN               8
#define WIRE_CMD_STATE                  0x4601  /* devices, as a package */
#define WIRE_CMD_STATE_LEN              8
#define WIRE_CMD_COMMIT                 0x4602  /* start the guest */
#define WIRE_CMD_COMMIT_LEN             4
#define WIRE_CMD_ABORT                  0x4603  /* it goes on at the source */
#define WIRE_CMD_ABORT_LEN              4

/*
 * With the feature INVENTORY, once, after the greeting and before anything
 * else: the destination sends what it is made of.  WITHDRAW may follow, and
 * nothing after it: there will be no guest on this connection.  A destination
 * that can wait for another one does, and sends SHUT with success.
 */
#define WIRE_CMD_INVENTORY              0x4608
#define WIRE_CMD_INVENTORY_LEN          0
#define WIRE_CMD_WITHDRAW               0x4609
#define WIRE_CMD_WITHDRAW_LEN           0

/*
 * With the feature CHECKPOINT, after precopy: one epoch after the other, each
 * the changes of memory since the one before and the state of all devices.  The
 * number is counted from 1.  CHECKPOINT_END is the last command: the guest goes
 * on at the source and will not be started from what was sent; the destination
 * answers with SHUT, and with success only if it has the guest already.
 *
 * With the feature CHECKPOINT_DISKS, and before the first epoch of a guest that
 * has such disks: CHECKPOINT_DISKS, how many of them are replicated.  From then
 * on an acknowledgement says that they have been committed, too.
 */
#define WIRE_CMD_CHECKPOINT             0x460a
#define WIRE_CMD_CHECKPOINT_LEN         16
#define WIRE_CMD_CHECKPOINT_END         0x460b
#define WIRE_CMD_CHECKPOINT_END_LEN     8
#define WIRE_CMD_CHECKPOINT_DISKS       0x460c
#define WIRE_CMD_CHECKPOINT_DISKS_LEN   4

/*
 * After INVENTORY, once, if the answer had WIRE_INVENTORY_LAYOUT: types of
 * sections, each a name after its length.  The answer is another WireInventory,
 * with the fields of those types.
 */
#define WIRE_CMD_LAYOUTS                0x460e
#define WIRE_CMD_LAYOUTS_MIN            2
#define WIRE_CMD_LAYOUTS_MAX            (16 * 1024)

typedef struct WireHold {
    wire_be32 attempt;                  /*  0 */
    wire_be32 limit_us;                 /*  4: of the downtime; for people */
} QEMU_PACKED WireHold;
WIRE_ASSERT_SIZE(WireHold, WIRE_CMD_HOLD_LEN);

typedef struct WireState {
    wire_be32 attempt;                  /*  0 */
    wire_be32 len;                      /*  4: up to WIRE_PACKAGED_MAX */
    /* after the command: records up to WIRE_EOF */
} QEMU_PACKED WireState;
WIRE_ASSERT_SIZE(WireState, WIRE_CMD_STATE_LEN);

/* COMMIT and ABORT */
typedef struct WireAttempt {
    wire_be32 attempt;                  /*  0 */
} QEMU_PACKED WireAttempt;
WIRE_ASSERT_SIZE(WireAttempt, WIRE_CMD_COMMIT_LEN);

typedef struct WireCheckpoint {
    wire_be64 number;                   /*  0 */
    wire_be32 memory;                   /*  8: bytes, up to PACKAGED_MAX */
    wire_be32 devices;                  /* 12: the same */
    /*
     * after the command: parts of the section "ram" up to WIRE_EOF, then
     * sections of devices up to WIRE_EOF
     */
} QEMU_PACKED WireCheckpoint;
WIRE_ASSERT_SIZE(WireCheckpoint, WIRE_CMD_CHECKPOINT_LEN);

/* CHECKPOINT_END and CHECKPOINT_ACK: the last epoch that was acknowledged */
typedef struct WireEpoch {
    wire_be64 number;                   /*  0 */
} QEMU_PACKED WireEpoch;
WIRE_ASSERT_SIZE(WireEpoch, WIRE_CMD_CHECKPOINT_END_LEN);

typedef struct WireCheckpointDisks {
    wire_be32 count;                    /*  0: from 1 */
} QEMU_PACKED WireCheckpointDisks;
WIRE_ASSERT_SIZE(WireCheckpointDisks, WIRE_CMD_CHECKPOINT_DISKS_LEN);

/*
 * 5. Return path: destination to source
 */

typedef struct WireReturn {
    wire_be16 type;                     /*  0: WIRE_RP_* */
    wire_be16 len;                      /*  2: up to WIRE_RP_PAYLOAD_MAX */
    /* payload */
} QEMU_PACKED WireReturn;
WIRE_ASSERT_SIZE(WireReturn, 4);

/* A QEMU 10.0 source takes no longer message. */
#define WIRE_RP_PAYLOAD_MAX             512

#define WIRE_RP_SHUT                    1
#define WIRE_RP_SHUT_LEN                4

#define WIRE_RP_PONG                    2
#define WIRE_RP_PONG_LEN                4

#define WIRE_RP_REQ_PAGES_ID            3       /* WireRequestPages, name */
#define WIRE_RP_REQ_PAGES_ID_MIN        13

#define WIRE_RP_REQ_PAGES               4       /* of the block before */
#define WIRE_RP_REQ_PAGES_LEN           12

#define WIRE_RP_RECV_BITMAP             5       /* name; since 3.0 */
#define WIRE_RP_RECV_BITMAP_MIN         1

#define WIRE_RP_RESUME_ACK              6       /* since 3.0 */
#define WIRE_RP_RESUME_ACK_LEN          4

#define WIRE_RP_SWITCHOVER_ACK          7       /* since 8.1 */
#define WIRE_RP_SWITCHOVER_ACK_LEN      0

/* SHUT, PONG and RESUME_ACK. */
typedef struct WireReturnValue {
    wire_be32 value;                    /*  0 */
} QEMU_PACKED WireReturnValue;
WIRE_ASSERT_SIZE(WireReturnValue, 4);

#define WIRE_SHUT_OK                    0       /* anything else: failed */
#define WIRE_RESUME_ACK_OK              1

typedef struct WireRequestPages {
    wire_be64 start;                    /*  0: bytes from the block's start */
    wire_be32 len;                      /*  8: bytes, whole host pages */
} QEMU_PACKED WireRequestPages;
WIRE_ASSERT_SIZE(WireRequestPages, WIRE_RP_REQ_PAGES_LEN);

/*
 * Messages of peers.  READY answers STATE, with the feature STRICT.  STARTED
 * says that the guest runs, with the feature REPORT: in any precopy, before
 * SHUT; the attempt is 0 if there was no HOLD.
 */
#define WIRE_RP_PEER_FIRST              0x4600

#define WIRE_RP_READY                   0x4600  /* WireReport */
#define WIRE_RP_STARTED                 0x4601  /* WireReport */
#define WIRE_RP_REPORT_MIN              16

/*
 * What the destination did with the guest's time.  What is not over yet is 0.
 * The devices that took longest follow, at most WIRE_REPORT_DEVICES_MAX: a
 * wire_be32 of microseconds and a name of at most WIRE_REPORT_NAME_MAX bytes,
 * which is cut off if it is longer.
 */
typedef struct WireReport {
    wire_be32 attempt;                  /*  0 */
    wire_be32 load_us;                  /*  4: after the last byte arrived */
    wire_be32 activate_us;              /*  8: disks */
    wire_be32 start_us;                 /* 12: until the last vCPU runs */
} QEMU_PACKED WireReport;
WIRE_ASSERT_SIZE(WireReport, WIRE_RP_REPORT_MIN);

#define WIRE_REPORT_DEVICES_MAX         10
#define WIRE_REPORT_NAME_MAX            40
#define WIRE_RP_REPORT_MAX \
    (WIRE_RP_REPORT_MIN + \
     WIRE_REPORT_DEVICES_MAX * (4 + 1 + WIRE_REPORT_NAME_MAX))
QEMU_BUILD_BUG_ON(WIRE_RP_REPORT_MAX > WIRE_RP_PAYLOAD_MAX);

/*
 * Why the destination is about to send SHUT with a failure, or to close the
 * connection, with the feature ERROR: UTF-8 text, not terminated.  Only SHUT
 * may follow it.  A text that is longer than the limit is cut.
 */
#define WIRE_RP_ERROR                   0x4604
#define WIRE_RP_ERROR_MIN               1
#define WIRE_RP_ERROR_MAX               WIRE_RP_PAYLOAD_MAX

/*
 * The answer to ABORT, with the feature STRICT: the destination forgot what it
 * had loaded of devices.  Before it, and at other times between HOLD and READY,
 * come those parts of its memory that something but the source has written to,
 * such as a reset: the source sends them again, and must not say COMMIT before.
 */
#define WIRE_RP_CHANGED                 0x4610  /* WireChanged, name */
#define WIRE_RP_CHANGED_MIN             17
#define WIRE_RP_ABORTED                 0x4611  /* WireAttempt */
#define WIRE_RP_ABORTED_LEN             4

typedef struct WireChanged {
    wire_be64 start;                    /*  0: bytes from the block's start, */
    wire_be64 len;                      /*  8: both in target pages */
    /* name of the block, after its length */
} QEMU_PACKED WireChanged;
WIRE_ASSERT_SIZE(WireChanged, WIRE_RP_CHANGED_MIN - 1);

/* Ranges that may come before they have been taken */
#define WIRE_CHANGED_MAX                65536

/*
 * The answer to INVENTORY: the next bytes of a WireInventory, in as many
 * messages as it takes.
 */
#define WIRE_RP_INVENTORY               0x4612
#define WIRE_RP_INVENTORY_MIN           1
#define WIRE_RP_INVENTORY_MAX           WIRE_RP_PAYLOAD_MAX

/* All of an epoch has arrived: the guest can be started from it. */
#define WIRE_RP_CHECKPOINT_ACK          0x4613  /* WireEpoch */
#define WIRE_RP_CHECKPOINT_ACK_LEN      8

/*
 * What a side of a migration is made of.  Items whose kind is not known are
 * skipped, and so is what follows the last field that is known of the others.
 */
typedef struct WireInventory {
    wire_be32 len;                      /*  0: of all, this included */
    wire_be32 items;                    /*  4: how many follow */
    wire_be32 omitted;                  /*  8: how many did not fit */
    /* items */
} QEMU_PACKED WireInventory;
WIRE_ASSERT_SIZE(WireInventory, 12);

#define WIRE_INVENTORY_MAX              (256 * 1024)
#define WIRE_INVENTORY_ITEMS_MAX        8192

typedef struct WireInventoryItem {
    uint8_t kind;                       /*  0: WIRE_INVENTORY_* */
    wire_be16 len;                      /*  1: of what follows */
    uint8_t flags;                      /*  3: of that kind */
    wire_be64 value[3];                 /*  4: of that kind */
    /* name; text with its length, which may be 0 */
} QEMU_PACKED WireInventoryItem;
WIRE_ASSERT_SIZE(WireInventoryItem, 28);

/* Kinds: name; text; values.  What is not mentioned is empty or 0. */
#define WIRE_INVENTORY_MACHINE          1   /* type; UUID; page bits, CPUs */
#define WIRE_INVENTORY_CAPABILITY       2   /* name; on */
#define WIRE_INVENTORY_PARAMETER        3   /* name; value */
#define WIRE_INVENTORY_CPU              4   /* type; ; how many */
#define WIRE_INVENTORY_CPU_WORD         5   /* which; ; bits of features */
/* name; ; bytes in use, at most, of a page */
#define WIRE_INVENTORY_RAM              6
/* name; type; instance, version, the oldest version that can be loaded */
#define WIRE_INVENTORY_SECTION          7
/* source: name of a section; one that is sent now; instance, digest */
/* destination: type of sections; one that can be loaded; 0, digest */
#define WIRE_INVENTORY_SUBSECTION       8
#define WIRE_INVENTORY_NODE             9   /* name of a block node */
#define WIRE_INVENTORY_BITMAP           10  /* name of its node; name */
/* subject; what is wrong on this side, and what to change */
#define WIRE_INVENTORY_PROBLEM          11
/*
 * type of sections; one of its subsections; digest of its fields, never 0,
 * version, the oldest one that can be loaded.  In the answer to LAYOUTS the
 * fields follow.
 */
#define WIRE_INVENTORY_LAYOUT           12
/*
 * path; type; bytes of an element, 0 if they depend on more than the type, how
 * many there are, 0 if that is part of the state, the version it is there from
 */
#define WIRE_INVENTORY_FIELD            13

#define WIRE_INVENTORY_RAM_RESIZABLE    0x01    /* up to the second value */
#define WIRE_INVENTORY_RAM_IGNORED      0x02    /* its pages are not sent */
#define WIRE_INVENTORY_SECTION_SENT     0x01    /* source: it would be, now */
#define WIRE_INVENTORY_SECTION_ALIAS    0x02    /* another name of one */
#define WIRE_INVENTORY_PROBLEM_FATAL    0x01    /* a migration would fail */
#define WIRE_INVENTORY_FIELD_CONDITIONAL 0x01   /* may not be there */
#define WIRE_INVENTORY_FIELD_UNUSED     0x02    /* bytes that mean nothing */
#define WIRE_INVENTORY_FIELD_POINTERS   0x04    /* NULL is a byte instead */
#define WIRE_INVENTORY_FIELD_BEGIN      0x08    /* structures: their fields */
#define WIRE_INVENTORY_FIELD_END        0x10    /* follow, and end here */

/*
 * After the message RECV_BITMAP, outside of any length: the bitmap of pages
 * received.  Bit n of byte m stands for target page 8 * m + n; the byte count
 * is a multiple of eight.
 */
typedef struct WireRecvBitmap {
    wire_be64 len;                      /*  0: bytes */
    /* bitmap; wire_be64 WIRE_RECV_BITMAP_END */
} QEMU_PACKED WireRecvBitmap;
WIRE_ASSERT_SIZE(WireRecvBitmap, 8);

#define WIRE_RECV_BITMAP_END            0x0123456789abcdefull

/*
 * 6. RAM: the bytes of sections named "ram"
 *
 * Records of a wire_be64 each, in which the bits below the target page size
 * are flags and the others the offset of a page in its block.  After the
 * flags, unless CONTINUE is among them, comes the name of the block.
 */

#define WIRE_RAM_NAME                   "ram"
/* Another section that is sent while the guest runs */
#define WIRE_BITMAPS_NAME               "dirty-bitmap"
#define WIRE_RAM_INSTANCE               0
#define WIRE_RAM_VERSION                4

/* The smallest target page; all flags must be below. */
#define WIRE_PAGE_SIZE_MIN              0x400

#define WIRE_RAM_FULL                   0x001   /* gone since 0.12 */
#define WIRE_RAM_ZERO                   0x002   /* a page of zeros */
#define WIRE_RAM_MEM_SIZE               0x004   /* total, then the blocks */
#define WIRE_RAM_PAGE                   0x008   /* a page, as it is */
#define WIRE_RAM_EOS                    0x010   /* end of the section */
#define WIRE_RAM_CONTINUE               0x020   /* same block as before */
#define WIRE_RAM_XBZRLE                 0x040   /* a page, as a difference */
#define WIRE_RAM_HOOK                   0x080   /* RDMA only */
#define WIRE_RAM_COMPRESSED             0x100   /* gone since 9.1 */
#define WIRE_RAM_MULTIFD_FLUSH          0x200   /* since 8.1 */
#define WIRE_RAM_FLAGS                  0x3ff
QEMU_BUILD_BUG_ON(WIRE_RAM_FLAGS >= WIRE_PAGE_SIZE_MIN);

/* ZERO: followed by one byte, which must be this. */
#define WIRE_RAM_ZERO_FILL              0

/*
 * MEM_SIZE: the rest of the record is the size of all blocks together.  For
 * each there is a name, a WireRamBlock, and what the capabilities ask for, in
 * this order:
 *   postcopy-ram       wire_be64 host page size, unless it is the usual one
 *   x-ignore-shared    wire_be64 guest physical address
 *   mapped-ram         WireMappedRam
 */
typedef struct WireRamBlock {
    wire_be64 used_len;                 /*  0: bytes */
} QEMU_PACKED WireRamBlock;
WIRE_ASSERT_SIZE(WireRamBlock, 8);

/* XBZRLE: at most a page of runs follows. */
typedef struct WireXbzrle {
    uint8_t encoding;                   /*  0: WIRE_XBZRLE_ENCODING */
    wire_be16 len;                      /*  1: up to the target page size */
    /* runs */
} QEMU_PACKED WireXbzrle;
WIRE_ASSERT_SIZE(WireXbzrle, 3);

#define WIRE_XBZRLE_ENCODING            0x01

/*
 * Only to a peer with the feature, and where the target page has at least
 * WIRE_PEER_PAGE_SIZE_MIN bytes: the flags need two bits more.
 *
 * RUN: pages that follow each other, as they are, after one header.
 * ZERO_RANGE: pages that follow each other and are zero.
 * All of either must lie in the block, and neither is empty.
 */
#define WIRE_PEER_PAGE_SIZE_MIN         0x1000

#define WIRE_RAM_RUN                    0x400
#define WIRE_RAM_ZERO_RANGE             0x800
#define WIRE_RAM_PEER_FLAGS             0xc00
QEMU_BUILD_BUG_ON((WIRE_RAM_FLAGS | WIRE_RAM_PEER_FLAGS) >=
                  WIRE_PEER_PAGE_SIZE_MIN);

typedef struct WireRamRun {
    wire_be32 pages;                    /*  0: up to WIRE_RAM_RUN_MAX */
    /* so many target pages */
} QEMU_PACKED WireRamRun;
WIRE_ASSERT_SIZE(WireRamRun, 4);

#define WIRE_RAM_RUN_MAX                512

typedef struct WireRamZeroRange {
    wire_be64 pages;                    /*  0 */
} QEMU_PACKED WireRamZeroRange;
WIRE_ASSERT_SIZE(WireRamZeroRange, 8);

/*
 * 7. mapped-ram (since 9.0): RAM at fixed places of a file
 *
 * Pages are not in the stream but at pages_at + offset in the block, and the
 * bitmap says which of them are.  Its words are of the source's size and byte
 * order, which for all hosts that matter means: bit n of byte m stands for
 * page 8 * m + n, and its size is a multiple of eight bytes.
 */
typedef struct WireMappedRam {
    wire_be32 version;                  /*  0: WIRE_MAPPED_RAM_VERSION */
    wire_be64 page_size;                /*  4: of the target */
    wire_be64 bitmap_at;                /* 12: position in the file */
    wire_be64 pages_at;                 /* 20: position in the file */
} QEMU_PACKED WireMappedRam;
WIRE_ASSERT_SIZE(WireMappedRam, 28);
WIRE_ASSERT_AT(WireMappedRam, page_size, 4);
WIRE_ASSERT_AT(WireMappedRam, pages_at, 20);

#define WIRE_MAPPED_RAM_VERSION         1
/* pages_at is a multiple of this, so that files can be opened O_DIRECT. */
#define WIRE_MAPPED_RAM_ALIGN           0x100000

/*
 * 8. multifd: further channels, each a stream of its own
 */

#define WIRE_MULTIFD_MAGIC              0x11223344u
#define WIRE_MULTIFD_VERSION            1

/* Once, at the start of each channel; not for files. */
typedef struct WireMultifdInit {
    wire_be32 magic;                    /*  0: WIRE_MULTIFD_MAGIC */
    wire_be32 version;                  /*  4: WIRE_MULTIFD_VERSION */
    uint8_t uuid[WIRE_UUID_LEN];        /*  8: of the VM, zero if it has none */
    uint8_t channel;                    /* 24: below the number of channels */
    uint8_t unused[7];                  /* 25: zero */
    wire_be32 attempt;                  /* 32: of WIRE_PING_AGAIN; else zero */
    uint8_t unused2[28];                /* 36: zero */
} QEMU_PACKED WireMultifdInit;
WIRE_ASSERT_SIZE(WireMultifdInit, 64);
WIRE_ASSERT_AT(WireMultifdInit, channel, 24);
WIRE_ASSERT_AT(WireMultifdInit, attempt, 32);

#define WIRE_MULTIFD_SYNC               0x001
#define WIRE_MULTIFD_METHOD             0x03e   /* one of the following */
#define WIRE_MULTIFD_NONE               0x000
#define WIRE_MULTIFD_ZLIB               0x002
#define WIRE_MULTIFD_ZSTD               0x004
#define WIRE_MULTIFD_QPL                0x008   /* since 9.1 */
#define WIRE_MULTIFD_UADK               0x010   /* since 9.1 */
#define WIRE_MULTIFD_QATZIP             0x020   /* since 9.2 */
#define WIRE_MULTIFD_DEVICE_STATE       0x040   /* since 10.0 */
#define WIRE_MULTIFD_FLAGS              0x07f
/*
 * Only to a peer with WIRE_PEER_CHANNEL_RECORDS, alone, in a packet without
 * pages, after the first mark, and where nothing is compressed.  From there on
 * the channel has the records of section 6 that are about whole pages and
 * zeros, and its marks are MULTIFD_FLUSH.  After EOS it has packets again.
 */
#define WIRE_MULTIFD_RECORDS            0x40000000u

/* Every packet begins with this; the flags say how it goes on. */
typedef struct WireMultifdHead {
    wire_be32 magic;                    /*  0: WIRE_MULTIFD_MAGIC */
    wire_be32 version;                  /*  4: WIRE_MULTIFD_VERSION */
    wire_be32 flags;                    /*  8: WIRE_MULTIFD_* */
} QEMU_PACKED WireMultifdHead;
WIRE_ASSERT_SIZE(WireMultifdHead, 12);

/* RAM. pages_max is the same in all packets of a channel: a packet's size. */
typedef struct WireMultifdPages {
    WireMultifdHead head;               /*  0 */
    wire_be32 pages_max;                /* 12: entries of the table below */
    wire_be32 normal_pages;             /* 16: first in the table */
    wire_be32 payload_len;              /* 20: bytes after the table */
    wire_be64 sequence;                 /* 24: over all channels */
    wire_be32 zero_pages;               /* 32: after the normal ones */
    uint8_t unused[28];                 /* 36: zero */
    char block[256];                    /* 64: name, zero-terminated */
    /* wire_be64 offset[pages_max] in the block; payload */
} QEMU_PACKED WireMultifdPages;
WIRE_ASSERT_SIZE(WireMultifdPages, 320);
WIRE_ASSERT_AT(WireMultifdPages, sequence, 24);
WIRE_ASSERT_AT(WireMultifdPages, block, 64);

/* Guest memory that one packet stands for, so pages_max is that in pages. */
#define WIRE_MULTIFD_PACKET_MEMORY      (512 * 1024)
#define WIRE_MULTIFD_PAGES_MAX \
    (WIRE_MULTIFD_PACKET_MEMORY / WIRE_PAGE_SIZE_MIN)
/* Compression may make it longer. */
#define WIRE_MULTIFD_PAYLOAD_MAX        (2 * WIRE_MULTIFD_PACKET_MEMORY)

/* Device state (VFIO, since 10.0), with the flag of that name. */
typedef struct WireMultifdDeviceState {
    WireMultifdHead head;               /*  0 */
    char name[256];                     /* 12: of the section, terminated */
    wire_be32 instance_id;              /* 268 */
    wire_be32 payload_len;              /* 272: bytes that follow */
    /* payload */
} QEMU_PACKED WireMultifdDeviceState;
WIRE_ASSERT_SIZE(WireMultifdDeviceState, 276);
WIRE_ASSERT_AT(WireMultifdDeviceState, instance_id, 268);

#define WIRE_MULTIFD_DEVICE_STATE_MAX   (256 * 1024 * 1024)

/*
 * 9. CPR (since 10.0): what goes ahead of a cpr-transfer, on its own channel
 */

#define WIRE_CPR_MAGIC                  0x51435052u     /* "QCPR" */
#define WIRE_CPR_VERSION                0x00000001u

typedef struct WireCprHeader {
    wire_be32 magic;                    /*  0: WIRE_CPR_MAGIC */
    wire_be32 version;                  /*  4: WIRE_CPR_VERSION */
    /* fields, with file descriptors among them */
} QEMU_PACKED WireCprHeader;
WIRE_ASSERT_SIZE(WireCprHeader, 8);

/* A file descriptor rides on one byte of this value. */
#define WIRE_FD_CARRIER                 0x20

/*
 * 10. COLO: after the first checkpoint, on both directions of the main
 * channel, a wire_be32 each; VMSTATE_SIZE is followed by a wire_be64.
 */

#define WIRE_COLO_CHECKPOINT_READY      0
#define WIRE_COLO_CHECKPOINT_REQUEST    1
#define WIRE_COLO_CHECKPOINT_REPLY      2
#define WIRE_COLO_VMSTATE_SEND          3
#define WIRE_COLO_VMSTATE_SIZE          4
#define WIRE_COLO_VMSTATE_RECEIVED      5
#define WIRE_COLO_VMSTATE_LOADED        6

/*
 * 11. Dirty bitmaps: the bytes of sections named "dirty-bitmap"
 *
 * Chunks, up to one with the flag EOS.  A chunk is its flags; with NODE the
 * name of a node, with NAME that of a bitmap, as counted strings, which hold
 * until the next one; and then what START or BITS has, in this order of
 * precedence: START, COMPLETE, BITS.
 */

#define WIRE_BITMAP_SECTION             "dirty-bitmap"
#define WIRE_BITMAP_INSTANCE            0
#define WIRE_BITMAP_VERSION             1

#define WIRE_BITMAP_EOS                 0x01    /* end of the section */
#define WIRE_BITMAP_ZEROES              0x02    /* BITS of which none is set */
#define WIRE_BITMAP_NAME                0x04
#define WIRE_BITMAP_NODE                0x08
#define WIRE_BITMAP_START               0x10    /* WireBitmapStart */
#define WIRE_BITMAP_COMPLETE            0x20    /* all bits have come */
#define WIRE_BITMAP_BITS                0x40    /* WireBitmapBits */
#define WIRE_BITMAP_MORE                0x80    /* flags of more bytes */

typedef struct WireBitmapStart {
    wire_be32 granularity;              /*  0: bytes, a power of two */
    uint8_t flags;                      /*  4: as below */
} QEMU_PACKED WireBitmapStart;
WIRE_ASSERT_SIZE(WireBitmapStart, 5);

#define WIRE_BITMAP_ENABLED             0x01
#define WIRE_BITMAP_PERSISTENT          0x02
#define WIRE_BITMAP_AUTOLOAD            0x04    /* of no meaning since 2.12 */
#define WIRE_BITMAP_START_FLAGS         0x07

/* Sectors of 512 bytes.  The first is a multiple of 64 granules. */
typedef struct WireBitmapBits {
    wire_be64 first;                    /*  0 */
    wire_be32 sectors;                  /*  8 */
    /*
     * without ZEROES: wire_be64 bytes, and so many of them, bit n of byte m
     * for granule 8 * m + n, filled up with zeros
     */
} QEMU_PACKED WireBitmapBits;
WIRE_ASSERT_SIZE(WireBitmapBits, 12);

#define WIRE_BITMAP_SECTORS_MAX         0x80000000u
/* Bytes of bits that a source puts into a chunk, and that one may have */
#define WIRE_BITMAP_CHUNK               1024
#define WIRE_BITMAP_CHUNK_MAX           10240
/* They are filled up to a multiple of 4 longs of the source. */
#define WIRE_BITMAP_FILL                32

#endif
