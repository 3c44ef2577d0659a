/* Running a plan, in one thread or several. */
#include "kernels.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#if defined(SPARSEC_THREADS)
#include <pthread.h>
#include <sched.h>
#endif

enum {
    MEMORIES = 64,  /* the most memories of a call */
    SPINS = 1 << 14 /* how often a thread looks before it sleeps: some 20 microseconds */
};

static void run_step(const sparsec_call *c, const sparsec_step *s, float *const *memory, int part, int parts, int thread) {
    char *scratch = (char *)memory[0] + c->plan->arena + thread * c->plan->scratch;
    c->plan->kernels[s->kernel].run(s, memory, scratch, part, parts);
}

static void run_alone(const sparsec_call *c) {
    float *memory[MEMORIES];
    for (int i = 0; i < c->plan->memories; i++) memory[i] = c->memory[i];
    for (int64_t n = 0; n < c->times; n++) {
        for (int i = 0; i < c->plan->steps; i++) run_step(c, c->plan->step + i, memory, 0, 1, 0);
        for (int i = 0; i < c->plan->memories; i++) memory[i] += c->advance[i];
    }
}

#if defined(SPARSEC_THREADS)

/* The part of the current step that a thread begins with, and others take if it has not come to that. */
typedef struct {
    _Alignas(64) atomic_ullong step; /* twice its number, and one more when the part is taken */
} lot;

/*
 * Threads that run one call at a time, together with the thread that calls. A step is done when all its parts are, and not when
 * all threads were there: one that the system lets wait holds up the others only if it has taken a part. Into which parts a step is
 * divided depends on the number of threads alone, so that results do not depend on who computes them.
 */
struct sparsec_pool {
    int threads;
    sparsec_call work;
    lot *lots;                 /* of each thread */
    _Alignas(64) atomic_int done; /* parts of the current step */
    atomic_int calls, open, stop; /* how many calls there were so far; whether one is under way */
    pthread_mutex_t mutex;
    pthread_cond_t called;
    struct worker {
        struct sparsec_pool *pool;
        int number;
        pthread_t thread;
    } *workers;
};

static void pause_spinning(int spun) {
#if defined(__SSE2__)
    __builtin_ia32_pause();
#endif
    if (spun % 256 == 255) sched_yield();
}

static void begin_step(sparsec_pool *pool, uint64_t step) {
    atomic_store_explicit(&pool->done, 0, memory_order_relaxed);
    for (int i = 0; i < pool->threads; i++) atomic_store_explicit(&pool->lots[i].step, 2 * step, memory_order_release);
}

/* Says that a part of a step is done; with the last of them begins the next step. */
static void finish_part(sparsec_pool *pool, uint64_t step) {
    if (atomic_fetch_add_explicit(&pool->done, 1, memory_order_acq_rel) + 1 < pool->threads) return;
    if (step + 1 < (uint64_t)pool->work.times * pool->work.plan->steps) begin_step(pool, step + 1);
    else atomic_store_explicit(&pool->open, 0, memory_order_release);
}

/* Computes a part of the current step unless somebody has taken it, and says whether it did. */
static int run_part(sparsec_pool *pool, int part, int thread) {
    atomic_ullong *lot = &pool->lots[part].step;
    /* Those who only look do not hold up those who take. */
    if (atomic_load_explicit(lot, memory_order_relaxed) & 1) return 0;
    const uint64_t found = atomic_fetch_or_explicit(lot, 1, memory_order_acq_rel), step = found / 2;
    if (found & 1) return 0;
    /* The call stays what it is until this part is done. */
    const sparsec_call *c = &pool->work;
    float *memory[MEMORIES];
    const int64_t n = (int64_t)(step / c->plan->steps);
    for (int i = 0; i < c->plan->memories; i++) memory[i] = c->memory[i] + n * c->advance[i];
    run_step(c, c->plan->step + step % c->plan->steps, memory, part, pool->threads, thread);
    finish_part(pool, step);
    return 1;
}

/*
 * Computes parts until the call is done: the thread's own as long as there is one, since what it reads was mostly written by the
 * same thread, and then others.
 */
static void take_part(sparsec_pool *pool, int thread) {
    for (int spun = 0; atomic_load_explicit(&pool->open, memory_order_acquire); spun++) {
        for (int i = 0; i < pool->threads;) {
            const int found = run_part(pool, (thread + i) % pool->threads, thread);
            i = found ? 0 : i + 1;
            if (found) spun = 0;
        }
        pause_spinning(spun);
    }
}

static void *work(void *given) {
    const struct worker *worker = given;
    sparsec_pool *pool = worker->pool;
    for (int seen = 0;;) {
        int spun = 0;
        while (atomic_load_explicit(&pool->calls, memory_order_acquire) == seen && spun < SPINS) pause_spinning(spun++);
        if (spun == SPINS) {
            pthread_mutex_lock(&pool->mutex);
            while (atomic_load(&pool->calls) == seen) pthread_cond_wait(&pool->called, &pool->mutex);
            pthread_mutex_unlock(&pool->mutex);
        }
        seen = atomic_load_explicit(&pool->calls, memory_order_acquire);
        if (atomic_load(&pool->stop)) return NULL;
        take_part(pool, worker->number);
    }
}

static void call_workers(sparsec_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->calls, 1, memory_order_release);
    pthread_cond_broadcast(&pool->called);
    pthread_mutex_unlock(&pool->mutex);
}

SPARSEC_API void sparsec_pool_free(sparsec_pool *pool) {
    if (!pool) return;
    atomic_store(&pool->stop, 1);
    call_workers(pool);
    for (int i = 0; i < pool->threads - 1; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->called);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->workers);
    free(pool->lots);
    free(pool);
}

/* A pool for calls with so many threads, or with fewer where the system gives no more; null where there is but one. */
SPARSEC_API sparsec_pool *sparsec_pool_new(int32_t threads) {
    sparsec_pool *pool = threads > 1 ? aligned_alloc(64, sizeof *pool) : NULL;
    if (!pool) return NULL;
    *pool = (sparsec_pool){.threads = 1};
    pool->workers = calloc(threads, sizeof *pool->workers);
    pool->lots = aligned_alloc(64, threads * sizeof *pool->lots);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->called, NULL);
    for (; pool->workers && pool->lots && pool->threads < threads; pool->threads++) {
        struct worker *worker = pool->workers + pool->threads - 1;
        *worker = (struct worker){.pool = pool, .number = pool->threads};
        if (pthread_create(&worker->thread, NULL, work, worker)) break;
    }
    if (pool->threads > 1) return pool;
    sparsec_pool_free(pool);
    return NULL;
}

SPARSEC_API int32_t sparsec_pool_threads(const sparsec_pool *pool) { return pool ? pool->threads : 1; }

static void run_together(sparsec_pool *pool, const sparsec_call *c) {
    if (c->times == 0 || c->plan->steps == 0) return;
    pool->work = *c;
    /* Workers that have not left the call before may begin, and end, with the first lot. */
    atomic_store_explicit(&pool->open, 1, memory_order_release);
    begin_step(pool, 0);
    call_workers(pool);
    take_part(pool, 0);
}

#else

SPARSEC_API sparsec_pool *sparsec_pool_new(int32_t threads) { return (void)threads, NULL; }
SPARSEC_API void sparsec_pool_free(sparsec_pool *pool) { (void)pool; }
SPARSEC_API int32_t sparsec_pool_threads(const sparsec_pool *pool) { return (void)pool, 1; }
static void run_together(sparsec_pool *pool, const sparsec_call *c) { (void)pool, run_alone(c); }

#endif

/* Runs a plan. The pool, if any, runs nothing else meanwhile, and the arena has scratch memory for all its threads. */
SPARSEC_API void sparsec_run(const sparsec_call *c) {
    if (c->pool) run_together(c->pool, c);
    else run_alone(c);
}

/* Runs a plan once, in one thread, and adds to nanoseconds[i] how long step i took. */
SPARSEC_API void sparsec_profile(const sparsec_plan *plan, float *const *memory, int64_t *nanoseconds) {
    const sparsec_call c = {plan, memory, NULL, 1, NULL};
    for (int i = 0; i < plan->steps; i++) {
        struct timespec from, to;
        timespec_get(&from, TIME_UTC);
        run_step(&c, plan->step + i, memory, 0, 1, 0);
        timespec_get(&to, TIME_UTC);
        nanoseconds[i] += (to.tv_sec - from.tv_sec) * 1000000000LL + (to.tv_nsec - from.tv_nsec);
    }
}
