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

/* The work of one call. */
typedef struct {
    const sparsec_plan *plan;
    float *const *memory;
    const int64_t *advance;
    int64_t times;
} call;

static void run_step(const call *c, const sparsec_step *s, float *const *memory, int part, int parts) {
    char *scratch = (char *)memory[0] + c->plan->arena + part * c->plan->scratch;
    c->plan->kernels[s->kernel].run(s, memory, scratch, part, parts);
}

static void advance(const call *c, float **memory) {
    for (int i = 0; i < c->plan->memories; i++) memory[i] += c->advance[i];
}

static void run_alone(const call *c) {
    float *memory[MEMORIES];
    for (int i = 0; i < c->plan->memories; i++) memory[i] = c->memory[i];
    for (int64_t n = 0; n < c->times; n++, advance(c, memory)) {
        for (int i = 0; i < c->plan->steps; i++) run_step(c, c->plan->step + i, memory, 0, 1);
    }
}

#if defined(SPARSEC_THREADS)

/* Threads that run one call at a time, together with the thread that calls. Between two steps all wait for one another. */
typedef struct sparsec_pool {
    int threads;
    call work;
    atomic_int arrived, phase; /* of the barrier */
    atomic_int calls, stop;    /* how many calls there were so far */
    pthread_mutex_t mutex;
    pthread_cond_t called;
    struct worker {
        struct sparsec_pool *pool;
        int part;
        pthread_t thread;
    } *workers;
} sparsec_pool;

static void pause_spinning(int spun) {
#if defined(__SSE2__)
    __builtin_ia32_pause();
#endif
    if (spun % 256 == 255) sched_yield();
}

static void wait_for_all(sparsec_pool *pool) {
    const int phase = atomic_load_explicit(&pool->phase, memory_order_acquire);
    if (atomic_fetch_add(&pool->arrived, 1) == pool->threads - 1) {
        atomic_store(&pool->arrived, 0);
        atomic_store_explicit(&pool->phase, phase + 1, memory_order_release);
        return;
    }
    for (int spun = 0; atomic_load_explicit(&pool->phase, memory_order_acquire) == phase; spun++) pause_spinning(spun);
}

static void run_part(sparsec_pool *pool, int part) {
    /* After the last barrier the calling thread may hand out the next call. */
    const call c = pool->work;
    float *memory[MEMORIES];
    for (int i = 0; i < c.plan->memories; i++) memory[i] = c.memory[i];
    for (int64_t n = 0; n < c.times; n++, advance(&c, memory)) {
        for (int i = 0; i < c.plan->steps; i++) {
            run_step(&c, c.plan->step + i, memory, part, pool->threads);
            wait_for_all(pool);
        }
    }
}

static void *work(void *given) {
    const struct worker *worker = given;
    sparsec_pool *pool = worker->pool;
    for (int done = 0;; done++) {
        int spun = 0;
        while (atomic_load_explicit(&pool->calls, memory_order_acquire) == done && spun < SPINS) pause_spinning(spun++);
        if (spun == SPINS) {
            pthread_mutex_lock(&pool->mutex);
            while (atomic_load(&pool->calls) == done) pthread_cond_wait(&pool->called, &pool->mutex);
            pthread_mutex_unlock(&pool->mutex);
        }
        if (atomic_load(&pool->stop)) return NULL;
        run_part(pool, worker->part);
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
    free(pool);
}

/* A pool for calls with so many threads, or with fewer where the system gives no more; null where there is but one. */
SPARSEC_API sparsec_pool *sparsec_pool_new(int32_t threads) {
    sparsec_pool *pool = threads > 1 ? calloc(1, sizeof *pool) : NULL;
    if (!pool) return NULL;
    pool->workers = calloc(threads, sizeof *pool->workers);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->called, NULL);
    for (pool->threads = 1; pool->workers && pool->threads < threads; pool->threads++) {
        struct worker *worker = pool->workers + pool->threads - 1;
        *worker = (struct worker){.pool = pool, .part = pool->threads};
        if (pthread_create(&worker->thread, NULL, work, worker)) break;
    }
    if (pool->threads > 1) return pool;
    sparsec_pool_free(pool);
    return NULL;
}

SPARSEC_API int32_t sparsec_pool_threads(const sparsec_pool *pool) { return pool ? pool->threads : 1; }

static void run_together(sparsec_pool *pool, const call *c) {
    pool->work = *c;
    call_workers(pool);
    run_part(pool, 0);
}

#else

typedef struct sparsec_pool sparsec_pool;
SPARSEC_API sparsec_pool *sparsec_pool_new(int32_t threads) { return (void)threads, NULL; }
SPARSEC_API void sparsec_pool_free(sparsec_pool *pool) { (void)pool; }
SPARSEC_API int32_t sparsec_pool_threads(const sparsec_pool *pool) { return (void)pool, 1; }
static void run_together(sparsec_pool *pool, const call *c) { (void)pool, run_alone(c); }

#endif

/*
 * Runs a plan `times` times; after each, memory i moves on by advance[i] floats. The pool, if any, runs nothing else meanwhile,
 * and the arena has scratch memory for all its threads.
 */
SPARSEC_API void sparsec_run(
    const sparsec_plan *plan, float *const *memory, const int64_t *advance, int64_t times, sparsec_pool *pool
) {
    const call c = {plan, memory, advance, times};
    if (pool) run_together(pool, &c);
    else run_alone(&c);
}

/* Runs a plan once, in one thread, and adds to nanoseconds[i] how long step i took. */
SPARSEC_API void sparsec_profile(const sparsec_plan *plan, float *const *memory, int64_t *nanoseconds) {
    const call c = {plan, memory, NULL, 1};
    for (int i = 0; i < plan->steps; i++) {
        struct timespec from, to;
        timespec_get(&from, TIME_UTC);
        run_step(&c, plan->step + i, memory, 0, 1);
        timespec_get(&to, TIME_UTC);
        nanoseconds[i] += (to.tv_sec - from.tv_sec) * 1000000000LL + (to.tv_nsec - from.tv_nsec);
    }
}
