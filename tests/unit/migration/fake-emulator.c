/*
 * A running QEMU, as far as migration/ needs one: vCPU, run state, device
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qapi/qapi-emit-events.h"
#include "qapi/qapi-events-migration.h"
#include "qobject/qdict.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/rcu.h"
#include "qemu/units.h"
#include "hw/boards.h"
#include "hw/core/cpu.h"
#include "migration/core/disks.h"
#include "migration/global_state.h"
#include "migration/misc.h"
#include "migration/permit.h"
#include "migration/vmstate.h"
#include "system/cpus.h"
#include "system/reset.h"
#include "system/runstate.h"
#include "system/system.h"
#include "fake-emulator.h"
#include "fake-memory.h"

/* So many steps, and then so long a pause, us */
#define STEPS 16
#define PAUSE_US 250

/*
 * How large the device's state is, besides its registers: what does not reach
 * the destination does not fit into what is in between
 */
#define DEVICE_BYTES (1 * MiB)

FaultSet faults;
CPUTailQ cpus_queue = QTAILQ_HEAD_INITIALIZER(cpus_queue);
MachineState *current_machine;
int autostart = 1;

static SideId side;
static Witness *witness;

static void accuse(const char *fmt, ...) G_GNUC_PRINTF(1, 2);

static void accuse(const char *fmt, ...)
{
    va_list ap;

    if (!qatomic_xchg(&witness->accused, 1)) {
        va_start(ap, fmt);
        vsnprintf(witness->accusation, sizeof(witness->accusation), fmt, ap);
        va_end(ap);
    }
}

/*
 * The BQL
 */

static QemuMutex bql;
static __thread bool bql_is_mine;

bool bql_locked(void)
{
    return bql_is_mine;
}

void rust_bql_mock_lock(void)
{
    g_assert_not_reached();
}

void bql_lock_impl(const char *file, int line)
{
    g_assert(!bql_is_mine);
    qemu_mutex_lock(&bql);
    bql_is_mine = true;
}

void bql_unlock(void)
{
    g_assert(bql_is_mine);
    bql_is_mine = false;
    qemu_mutex_unlock(&bql);
}

void bql_block_unlock(bool increase)
{
}

/* Others may have it meanwhile. */
static void wait_with_bql(QemuCond *cond)
{
    bql_is_mine = false;
    qemu_cond_wait(cond, &bql);
    bql_is_mine = true;
}

void qemu_cond_timedwait_bql(QemuCond *cond, int ms)
{
    bql_is_mine = false;
    qemu_cond_timedwait(cond, &bql, ms);
    bql_is_mine = true;
}

/*
 * The vCPU
 */

struct qemu_work_item {
    QSIMPLEQ_ENTRY(qemu_work_item) node;
    run_on_cpu_func func;
    run_on_cpu_data data;
};

static struct {
    CPUState *cpu;
    QemuThread thread;
    QemuCond wake;              /* its halt_cond */
    QemuCond paused;
    uint64_t steps;             /* its registers; its own while it runs */
} vcpu;

static void one_step(void)
{
    unsigned long n = vcpu.steps, now;

    now = qatomic_cmpxchg(&witness->steps, n, n + 1);
    if (now != n) {
        accuse("the guest is at step %lu on side %d, when %lu were done", n,
               side, now);
        qatomic_set(&vcpu.cpu->stop, true);
        return;
    }
    memory_guest_step(n);
    vcpu.steps = n + 1;
}

static void run_guest(void)
{
    CPUState *cpu = vcpu.cpu;

    for (unsigned i = 0; i < STEPS && !qatomic_read(&cpu->stop); i++) {
        one_step();
    }
    g_usleep(PAUSE_US);
}

/* A guest is not stopped before it has ended what it is at.  BQL. */
static void last_steps(void)
{
    if (faults.bursts) {
        faults.bursts--;
        for (unsigned i = 0; i < faults.burst_steps; i++) {
            one_step();
        }
    }
}

void process_queued_cpu_work(CPUState *cpu)
{
    struct qemu_work_item *item;

    while ((item = QSIMPLEQ_FIRST(&cpu->work_list))) {
        QSIMPLEQ_REMOVE_HEAD(&cpu->work_list, node);
        item->func(cpu, item->data);
        g_free(item);
    }
}

static void *vcpu_thread(void *opaque)
{
    CPUState *cpu = vcpu.cpu;

    rcu_register_thread();
    bql_lock();
    cpu->thread_id = qemu_get_thread_id();
    for (;;) {
        process_queued_cpu_work(cpu);
        if (cpu->stop) {
            if (!cpu->stopped) {
                last_steps();
            }
            cpu->stopped = true;
            qemu_cond_broadcast(&vcpu.paused);
            wait_with_bql(&vcpu.wake);
            continue;
        }
        bql_unlock();
        run_guest();
        bql_lock();
    }
    return NULL;
}

void async_run_on_cpu(CPUState *cpu, run_on_cpu_func func, run_on_cpu_data data)
{
    struct qemu_work_item *item = g_new0(struct qemu_work_item, 1);

    g_assert(bql_locked());
    item->func = func;
    item->data = data;
    QSIMPLEQ_INSERT_TAIL(&cpu->work_list, item, node);
    qemu_cond_broadcast(&vcpu.wake);
}

void run_on_cpu(CPUState *cpu, run_on_cpu_func func, run_on_cpu_data data)
{
    g_assert_not_reached();
}

void qemu_cpu_kick(CPUState *cpu)
{
    qemu_cond_broadcast(&vcpu.wake);
}

static void vcpu_init(void)
{
    CPUState *cpu = g_new0(CPUState, 1);

    qemu_cond_init(&vcpu.wake);
    qemu_cond_init(&vcpu.paused);
    cpu->halt_cond = &vcpu.wake;
    cpu->stop = true;
    QSIMPLEQ_INIT(&cpu->work_list);
    QTAILQ_INSERT_TAIL_RCU(&cpus_queue, cpu, node);
    vcpu.cpu = cpu;
    qemu_thread_create(&vcpu.thread, "vCPU", vcpu_thread, NULL,
                       QEMU_THREAD_DETACHED);
}

static bool device_is_misled;   /* when it was last loaded; BQL */

static void vcpu_pause(void)
{
    qatomic_set(&vcpu.cpu->stop, true);
    while (!vcpu.cpu->stopped) {
        wait_with_bql(&vcpu.paused);
    }
    qatomic_set(&witness->guest_at, 0);
}

static void vcpu_resume(void)
{
    int where = qatomic_cmpxchg(&witness->guest_at, 0, side + 1);

    if (where) {
        accuse("the guest is started on side %d and runs on side %d", side,
               where - 1);
    }
    if (device_is_misled) {
        accuse("what a device found in memory is not what it was");
    }
    qatomic_inc(&witness->starts[side]);
    vcpu.cpu->stopped = false;
    qatomic_set(&vcpu.cpu->stop, false);
    qemu_cond_broadcast(&vcpu.wake);
}

uint64_t emulator_steps(void)
{
    return vcpu.steps;
}

/*
 * Run states
 */

static RunState run_state = RUN_STATE_PRELAUNCH;
static bool suspended;
static bool reset_requested;

RunState runstate_get(void)
{
    return run_state;
}

bool runstate_check(RunState state)
{
    return run_state == state;
}

bool runstate_is_running(void)
{
    return run_state == RUN_STATE_RUNNING;
}

void runstate_set(RunState state)
{
    g_assert(bql_locked());
    run_state = state;
}

bool vm_get_suspended(void)
{
    return suspended;
}

void vm_set_suspended(bool on)
{
    suspended = on;
}

void vm_start(void)
{
    if (!runstate_is_running() &&
        migration_permits(MIGRATION_ACT_START, NULL)) {
        if (!(qatomic_read(&witness->disks_at) & (1 << side))) {
            accuse("the guest is started on side %d without disks", side);
        }
        runstate_set(RUN_STATE_RUNNING);
        vcpu_resume();
    }
}

static int flush_disks(void)
{
    return faults.flush_fails ? -EIO : 0;
}

static void device_stopped(void)
{
    if (faults.stop_writes) {
        memory_device_write(GUEST_DEVICE_WORD, DEVICE_STOPPED);
    }
}

static int stop_guest_in(RunState state)
{
    if (runstate_is_live(run_state)) {
        runstate_set(state);
        vcpu_pause();
        device_stopped();
    }
    return flush_disks();
}

int vm_stop(RunState state)
{
    return vm_stop_force_state(state);
}

int vm_stop_force_state(RunState state)
{
    if (runstate_is_live(run_state)) {
        return stop_guest_in(state);
    }
    runstate_set(state);
    return flush_disks();
}

void emulator_stop(void)
{
    if (!migration_permits(MIGRATION_ACT_STOP, NULL)) {
        return;
    }
    if (runstate_is_live(run_state)) {
        stop_guest_in(RUN_STATE_PAUSED);
    } else {
        migration_note_stop(RUN_STATE_PAUSED);
    }
}

void emulator_cont(void)
{
    if (disks_activate(NULL)) {
        vm_start();
    }
}

/*
 * Requests
 */

bool qemu_system_requests_pending(void)
{
    return reset_requested;
}

void qemu_system_requests_drop(void)
{
    reset_requested = false;
}

bool qemu_vmstop_requested(RunState *state)
{
    *state = RUN_STATE__MAX;
    return false;
}

ShutdownCause qemu_shutdown_requested_get(void)
{
    return SHUTDOWN_CAUSE_NONE;
}

/* What the guest is in afterwards is left to the tests. */
static void reset_devices_of_machine(void)
{
    qatomic_inc(&witness->resets[side]);
    if (faults.reset_writes) {
        memory_device_write(GUEST_DEVICE_WORD, DEVICE_RESET);
    }
}

void qemu_system_reset(ShutdownCause reason)
{
    reset_devices_of_machine();
}

void qemu_devices_reset(ResetType type)
{
    g_assert_not_reached();
}

void emulator_request_reset(void)
{
    reset_requested = true;
}

void emulator_round(void)
{
    if (reset_requested && !migration_requests_wait()) {
        reset_requested = false;
        reset_devices_of_machine();
    }
    main_loop_wait(false);
}

/*
 * Disks
 */

bool disks_inactivate(Error **errp)
{
    g_assert(bql_locked());
    if (faults.inactivate_fails) {
        error_setg(errp, "a disk that is stuck");
        return false;
    }
    if (faults.release_writes) {
        memory_device_write(GUEST_DEVICE_WORD, DEVICE_STOPPED);
    }
    qatomic_and(&witness->disks_at, ~(1 << side));
    return true;
}

bool disks_activate(Error **errp)
{
    int before;

    g_assert(bql_locked());
    if (faults.activate_fails) {
        error_setg(errp, "a disk that is not there");
        return false;
    }
    before = qatomic_fetch_or(&witness->disks_at, 1 << side);
    if (before & ~(1 << side)) {
        accuse("side %d activates disks that the other side has", side);
    }
    return true;
}

/*
 * A device: registers of the vCPU, and something to make it large
 */

typedef struct Device {
    uint64_t steps;
    uint64_t word;              /* of memory, as it is when it is saved */
    uint8_t waste[DEVICE_BYTES];
} Device;

static Device device;

static int device_pre_save(void *opaque)
{
    g_usleep(faults.save_ms * 1000);
    device.steps = vcpu.steps;
    device.word = memory_device_read(guest_step_offset(vcpu.steps));
    memset(device.waste, vcpu.steps, sizeof(device.waste));
    return faults.save_fails ? -EIO : 0;
}

/* As a virtio device does, which looks at its rings */
static bool device_finds_memory(void)
{
    return memory_device_read(guest_step_offset(device.steps)) == device.word;
}

static int device_post_load(void *opaque, int version_id)
{
    g_usleep(faults.load_ms * 1000);
    if (faults.load_fails) {
        return -EINVAL;
    }
    /* In an attempt that has been given up meanwhile it may find anything. */
    device_is_misled = faults.load_reads && !device_finds_memory();
    if (faults.load_writes) {
        memory_device_write(GUEST_DEVICE_WORD, DEVICE_LOADED);
    }
    vcpu.steps = device.steps;
    return 0;
}

static const VMStateDescription device_vmstate = {
    .name = "fake-device",
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = device_pre_save,
    .post_load = device_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_UINT64(steps, Device),
        VMSTATE_UINT64(word, Device),
        VMSTATE_BUFFER(waste, Device),
        VMSTATE_END_OF_LIST()
    },
};

/*
 * Events
 */

static struct {
    QemuMutex lock;
    GString *phases;
    unsigned counts[QAPI_EVENT__MAX];
} announced;

void qapi_event_emit(QAPIEvent event, QDict *qdict)
{
    QEMU_LOCK_GUARD(&announced.lock);
    announced.counts[event]++;
    if (event == QAPI_EVENT_MIGRATION) {
        QDict *data = qdict_get_qdict(qdict, "data");

        g_string_append_printf(announced.phases, "%s ",
                               qdict_get_str(data, "status"));
    }
}

char *emulator_phases(void)
{
    QEMU_LOCK_GUARD(&announced.lock);
    return g_strdup(announced.phases->str);
}

unsigned emulator_events(QAPIEvent event)
{
    QEMU_LOCK_GUARD(&announced.lock);
    return announced.counts[event];
}

/*
 * The beginning
 */

static void machine_reset(MachineState *machine, ResetType type)
{
    reset_devices_of_machine();
}

static void machine_class_init(ObjectClass *oc, void *data)
{
    MachineClass *mc = MACHINE_CLASS(oc);

    mc->name = g_strdup("fake");
    mc->reset = machine_reset;
}

static const TypeInfo machine_info = {
    .name = TYPE_MACHINE,
    .parent = TYPE_OBJECT,
    .class_size = sizeof(MachineClass),
    .class_init = machine_class_init,
    .instance_size = sizeof(MachineState),
};

static void register_machine(void)
{
    type_register_static(&machine_info);
}

type_init(register_machine)

static void machine_init_fake(void)
{
    current_machine = MACHINE(object_new(TYPE_MACHINE));
    object_property_add_child(object_get_root(), "machine",
                              OBJECT(current_machine));
}

void emulator_init(SideId id, Witness *w)
{
    side = id;
    witness = w;
    qemu_mutex_init(&bql);
    qemu_mutex_init(&announced.lock);
    announced.phases = g_string_new("");
    qemu_init_main_loop(&error_abort);
    module_call_init(MODULE_INIT_QOM);
    bql_lock();
    memory_init(side == SOURCE);
    machine_init_fake();
    vcpu_init();
    vmstate_register(NULL, 0, &device_vmstate, &device);
    register_global_state();
    migration_object_init();
    if (side == SOURCE) {
        qatomic_set(&witness->disks_at, 1 << side);
        vm_start();
    } else {
        runstate_set(RUN_STATE_INMIGRATE);
    }
}
