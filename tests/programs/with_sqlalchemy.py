"""SQLAlchemy: 100 threads share a pool of 20 connections."""

import sys

import beside
import sqlalchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = sqlalchemy.create_engine(
    f"postgresql+psycopg://postgres@127.0.0.1:{sys.argv[1]}/postgres",
    pool_size=20,
    max_overflow=0,
    pool_timeout=60,
)


class Base(DeclarativeBase):
    pass


class Number(Base):
    __tablename__ = "numbers"
    number: Mapped[int] = mapped_column(primary_key=True)
    square: Mapped[int]


Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)


def task(number):
    with engine.connect() as connection:
        query = sqlalchemy.text("select cast(:n as int) from pg_sleep(0.02)")
        first = connection.execute(query, {"n": number}).scalar_one()
    with Session(engine) as session:
        session.add(Number(number=number, square=number * number))
        session.commit()
    with Session(engine) as session:
        second = session.get(Number, number).square
    return first, second


beside.run(task)
with Session(engine) as session:
    print("rows", session.query(Number).count())
print(engine.pool.status())
Base.metadata.drop_all(engine)
engine.dispose()
