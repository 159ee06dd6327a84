/*
 * The source: why a migration failed, as far as the destination knows it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "migration/multifd/senders.h"
#include "migration/wire/stream.h"
#include "failure.h"
#include "state.h"

/* How long a destination that closed the connection may take to say why */
#define REASON_MS 200

/* Only errors of the channel are of this kind. */
static bool is_broken(QEMUFile *f)
{
    return f && qemu_file_get_error(f) == -EIO;
}

static bool streams_broken(void)
{
    return is_broken(source.to_dst) || is_broken(source.urgent) ||
           (source.senders && senders_broken(source.senders));
}

/*
 * What the destination says of its failure, or NULL.  A return path that broke
 * with the stream ends at once.
 */
static Error *from_destination(void)
{
    ReturnPath *rp = source.return_path;
    g_autofree char *reason = NULL;
    ReturnPathEnd end;
    Error *err = NULL;

    if (!rp) {
        return NULL;
    }
    if (streams_broken()) {
        return_path_wait_end(rp, REASON_MS, NULL);
    }
    end = return_path_state(rp, &err);
    reason = return_path_reason(rp);
    if (!err && reason) {
        error_setg(&err, "destination: %s", reason);
    }
    if (end != RETURN_PATH_REFUSED && !reason) {
        error_free(err);
        err = NULL;
    }
    return err;
}

bool source_streams_intact(Error **errp)
{
    Error *err;

    if (stream_check(source.to_dst, NULL) &&
        (!source.urgent || stream_check(source.urgent, NULL))) {
        return true;
    }
    err = from_destination();
    if (err) {
        error_propagate(errp, err);
    } else if (stream_check(source.to_dst, errp)) {
        stream_check(source.urgent, errp);
    }
    return false;
}

/*
 * A destination that closes the connection before it has answered has found the
 * header or the configuration unlike its own.  Takes over @err.
 */
static Error *with_likely_cause(Error *err)
{
    ReturnPath *rp = source.return_path;
    Error *whole = NULL;

    if (!err || !rp || return_path_answered(rp) || source.lost ||
        !is_broken(source.to_dst) ||
        return_path_state(rp, NULL) != RETURN_PATH_BROKEN) {
        return err;
    }
    error_setg(&whole, "%s; the destination closed the connection before it "
               "loaded anything: machine type and capabilities must be the "
               "same on both sides, and no other source connected",
               error_get_pretty(err));
    error_free(err);
    return whole;
}

Error *source_failure_complete(Error *err)
{
    Error *said = from_destination();

    if (!said) {
        return with_likely_cause(err);
    }
    if (err && strstr(error_get_pretty(err), error_get_pretty(said))) {
        error_free(said);
        return err;
    }
    if (err && (source.lost || !streams_broken())) {
        /* It is more than a consequence. */
        error_prepend(&said, "%s; ", error_get_pretty(err));
    }
    error_free(err);
    return said;
}
