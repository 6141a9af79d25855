"""The agent: one small process for each user who has runs waiting, and none for anybody else.

It puts the user's first few tickets on the board, and forks a supervisor for each run that gets its turn. It is started
by whatever command finds work for it, and goes when there is none. It may die at any moment: supervisors go on without
it, what waits stands in the store, and the next command starts another agent.
"""
